use super::*;
use std::collections::BTreeSet;

const PAGE: &str = include_str!("../../../docs/migrating.md");
const UPSTREAM: &str = include_str!("../../../docs/upstream.md");

fn of<'a>(set: &'a [(&str, &str)]) -> impl Fn(&str) -> Option<String> + 'a {
    |name| set.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).to_owned())
}

#[test]
fn what_is_set_and_not_read_is_said_in_one_line() {
    let reads = |name: &str| name == "KEDA_HTTP_READINESS_TIMEOUT";
    let set = [
        ("KEDA_HTTP_RESPONSE_HEADER_TIMEOUT", "300s"),
        ("KEDA_HTTP_READINESS_TIMEOUT", "20s"),
        ("KEDA_HTTP_LOG_REQUESTS", "true"),
        ("KEDA_HTTP_REQUEST_TIMEOUT", " "),
        ("KEDA_ADD_ONS_HTTP_OPERATOR_SERVICE_HOST", "10.0.0.1"),
    ];
    let said = warning(reads, of(&set)).unwrap();
    assert!(
        said.contains("nothing here: KEDA_HTTP_LOG_REQUESTS, KEDA_HTTP_RESPONSE_HEADER_TIMEOUT. "),
        "{said}"
    );
    assert!(!said.contains('\n') && said.contains("docs/migrating.md"), "{said}");
}

#[test]
fn nothing_is_said_where_all_that_is_set_is_read() {
    assert_eq!(warning(|_| true, of(&[("KEDA_HTTP_READINESS_TIMEOUT", "20s")])), None);
    assert_eq!(warning(|_| false, of(&[("KEDA_HTTP_READINESS_TIMEOUT", "")])), None);
    assert_eq!(warning(|_| false, of(&[])), None);
}

#[test]
fn each_is_named_once_and_the_documents_say_what_becomes_of_it() {
    assert_eq!(VARIABLES.iter().collect::<BTreeSet<_>>().len(), VARIABLES.len());
    let missing: Vec<&str> = VARIABLES
        .into_iter()
        .filter(|name| ![PAGE, UPSTREAM].iter().any(|page| page.contains(&format!("`{name}`"))))
        .collect();
    assert_eq!(missing, [""; 0], "no table of docs/migrating.md or docs/upstream.md has these");
}

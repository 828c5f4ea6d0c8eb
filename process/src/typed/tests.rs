use super::*;

fn value(text: &str) -> Typed<'_> {
    typed("--flag", "FLAG", text, "30s")
}

#[test]
fn an_empty_value_stands_for_the_default() {
    for empty in ["", " ", "\t\n"] {
        assert_eq!(value(empty).text(), "30s");
        assert_eq!(value(empty).duration(), Ok(Duration::from_secs(30)));
        assert_eq!(text(empty), None);
    }
    assert_eq!(value(" 5s ").duration(), Ok(Duration::from_secs(5)));
    assert_eq!(text(" a "), Some("a".to_owned()));
}

#[test]
fn booleans_are_gos() {
    for yes in ["1", "t", "T", "true", "TRUE", "True"] {
        assert_eq!(value(yes).boolean(), Ok(true), "{yes}");
    }
    for no in ["0", "f", "F", "false", "FALSE", "False"] {
        assert_eq!(value(no).boolean(), Ok(false), "{no}");
    }
    for neither in ["yes", "on", "2", "tRUE"] {
        assert_eq!(value(neither).boolean(), Err(value(neither).error("true or false")), "{neither}");
    }
}

#[test]
fn an_error_names_flag_variable_value_and_what_would_do() {
    let error = value("65536").port().unwrap_err();
    assert_eq!(error.to_string(), "--flag (FLAG): \"65536\" is not a port, 0 to 65535");
    assert!(value("soon").duration().is_err());
}

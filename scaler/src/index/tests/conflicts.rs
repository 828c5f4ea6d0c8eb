//! Objects that ask for the same requests to the same target; see [`super::super::claims`] for what that is.

use super::*;

#[test]
fn an_object_that_an_older_one_has_the_requests_of_says_so_while_it_is_there() {
    let mut bed = Bed::new();
    bed.apply(plain());
    let mut older = object(
        "InterceptorRoute",
        &json!({
            "target": {"service": "svc", "port": 80},
            "rules": [{"hosts": ["a.example.com"]}],
            "scalingMetric": {"concurrency": {"targetValue": 10}},
        }),
    );
    older["metadata"]["name"] = json!("older");
    bed.apply(Object::InterceptorRoute(Box::new(serde_json::from_value(older.clone()).unwrap())));
    let both = |bed: &Bed| {
        let route = bed.index.get(ROUTE, "ns", "older").unwrap();
        (bed.index.shadow(bed.entry(HTTP)), bed.index.shadow(route))
    };
    // Of one age, the greater name is the first.
    let (Some(shadow), None) = both(&bed) else { panic!("{:?}", both(&bed)) };
    assert_eq!((shadow.kind, &*shadow.name), (ROUTE, "older"));
    let name = Name { namespace: "ns".to_owned(), name: "app".to_owned() };
    let conditions = bed.entry(HTTP).conditions(HTTP, &name, 0, Some(&shadow));
    assert_eq!(
        (conditions[1].type_, conditions[1].reason, conditions[1].status),
        ("Conflicted", "ShadowedBy", true)
    );
    older["spec"]["rules"][0]["hosts"] = json!(["b.example.com"]);
    bed.apply(Object::InterceptorRoute(Box::new(serde_json::from_value(older.clone()).unwrap())));
    assert_eq!(both(&bed), (None, None));
    older["spec"]["rules"][0]["hosts"] = json!(["a.example.com"]);
    bed.apply(Object::InterceptorRoute(Box::new(serde_json::from_value(older).unwrap())));
    assert!(both(&bed).0.is_some());
    bed.delete(ObjectKind::InterceptorRoute, "older");
    assert_eq!(bed.index.shadow(bed.entry(HTTP)), None);
}

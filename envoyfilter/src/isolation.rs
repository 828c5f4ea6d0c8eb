//! Where the filter is at work with isolation: the virtual hosts on which it is enabled.

use crate::{Error, Settings};
use serde_json::{Value, json};

/// The most virtual hosts that one EnvoyFilter enables the filter on. etcd takes objects of 1.5 MiB, and each costs
/// some 400 bytes and its name.
pub const ISOLATION_LIMIT: usize = 2_000;

/// The filter's name in the chain, as `template.yaml` has it.
const FILTER: &str = "sluice";

/// The EnvoyFilter that enables the filter on the virtual hosts of these domains, for example `shop.example.com`,
/// `*.example.com` and `*`. One that no virtual host has does nothing.
///
/// # Errors
/// If a setting cannot work, or there are more than [`ISOLATION_LIMIT`].
pub fn isolation<'a>(
    settings: &Settings,
    domains: impl IntoIterator<Item = &'a str>,
) -> Result<Value, Error> {
    settings.check()?;
    // An entry that is there enables. What is in it would be the filter's own, of which Wasm has none: Envoy passes
    // over it where it is optional. To leave it empty would do for Envoy; istiod does not read that.
    let enabled = json!({FILTER: {
        "@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig",
        "is_optional": true,
        "config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm"},
    }});
    let patch = |domain: &str| {
        json!({
            "applyTo": "VIRTUAL_HOST",
            "match": {"context": "GATEWAY", "routeConfiguration": {"vhost": {"domainName": domain}}},
            "patch": {"operation": "MERGE", "value": {"typed_per_filter_config": enabled}},
        })
    };
    let patches = domains.into_iter().map(patch).collect::<Vec<_>>();
    if patches.len() > ISOLATION_LIMIT {
        return Err(Error::TooManyDomains(patches.len()));
    }
    let (binding, bound) = settings.binding.field();
    Ok(json!({
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "EnvoyFilter",
        "metadata": {
            "name": format!("{}-isolation", settings.name),
            "namespace": settings.namespace,
            "labels": {
                "app.kubernetes.io/name": "sluice",
                "app.kubernetes.io/component": "isolation",
                "app.kubernetes.io/version": env!("CARGO_PKG_VERSION"),
            },
        },
        "spec": {"priority": settings.priority, binding: bound, "configPatches": patches},
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Binding;

    #[test]
    fn each_domain_is_a_virtual_host_of_the_gateways() {
        let settings =
            Settings { binding: Binding::selector(["istio=edge"]).unwrap(), ..Settings::default() };
        let value = isolation(&settings, ["a.example.com", "*.b.example.com"]).unwrap();
        assert_eq!(value["metadata"]["name"], "sluice-isolation");
        assert_eq!(value["spec"]["workloadSelector"], json!({"labels": {"istio": "edge"}}));
        let patches = value["spec"]["configPatches"].as_array().unwrap();
        let domains: Vec<_> = patches
            .iter()
            .map(|patch| patch["match"]["routeConfiguration"]["vhost"]["domainName"].as_str().unwrap())
            .collect();
        assert_eq!(domains, ["a.example.com", "*.b.example.com"]);
        assert!(patches.iter().all(|patch| patch["match"]["context"] == "GATEWAY"));
    }

    #[test]
    fn it_is_the_filter_of_the_template_that_is_enabled() {
        let filter = crate::Manifest::new(&Settings::default(), b"\0asm").unwrap();
        let name = &filter.value()["spec"]["configPatches"][1]["patch"]["value"]["name"];
        let value = isolation(&Settings::default(), ["a.example.com"]).unwrap();
        let enabled = &value["spec"]["configPatches"][0]["patch"]["value"]["typed_per_filter_config"];
        assert!(enabled.get(name.as_str().unwrap()).is_some(), "{enabled}");
    }

    #[test]
    fn as_many_as_an_object_holds() {
        let domain = format!("{}.example.com", "a".repeat(63));
        let value = isolation(&Settings::default(), vec![domain.as_str(); ISOLATION_LIMIT]).unwrap();
        assert!(value.to_string().len() < 1_000_000, "{}", value.to_string().len());
        let error = isolation(&Settings::default(), vec![domain.as_str(); ISOLATION_LIMIT + 1]).unwrap_err();
        assert!(error.to_string().contains("2001"), "{error}");
    }
}

//! Template, settings and module together.

use crate::{Error, Settings};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

const TEMPLATE: &str = include_str!("../template.yaml");

/// What every WebAssembly module begins with.
const MAGIC: &[u8] = b"\0asm";

/// The most that all annotations of an object may take together, in bytes: Kubernetes' own limit. Plain
/// `kubectl apply` keeps the whole object in one of them.
pub const ANNOTATION_LIMIT: usize = 256 * 1024;

/// The annotation that plain `kubectl apply` adds.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The EnvoyFilter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    yaml: String,
    value: Value,
}

// === impl Manifest ===

impl Manifest {
    /// # Errors
    /// If a setting cannot work, or `module` is none.
    pub fn new(settings: &Settings, module: &[u8]) -> Result<Self, Error> {
        settings.check()?;
        if !module.starts_with(MAGIC) {
            return Err(Error::Module);
        }
        let (binding, bound) = settings.binding.field();
        let namespace = &settings.scaler.namespace;
        let services = settings.scaler.hosts().map(|host| format!("{namespace}/{host}")).collect::<Vec<_>>();
        // JSON is YAML: whatever a value holds, it stays one value.
        let fields = [
            ("name", json!(settings.name)),
            ("namespace", json!(settings.namespace)),
            ("version", json!(env!("CARGO_PKG_VERSION"))),
            ("services", json!(services.join(","))),
            ("priority", json!(settings.priority)),
            ("binding", json!(binding)),
            ("bound", bound),
            ("disabled", json!(settings.isolation)),
            ("configuration", json!(settings.configuration().to_string())),
            ("module", json!(STANDARD.encode(module))),
        ];
        let yaml = fill(TEMPLATE, &fields)?;
        let value = serde_saphyr::from_str(&yaml).map_err(|error| Error::Template(error.to_string()))?;
        Ok(Self { yaml, value })
    }

    /// To be applied by hand.
    pub fn yaml(&self) -> &str {
        &self.yaml
    }

    /// To be applied through the API.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// How many bytes of annotations the object has after plain `kubectl apply`, which keeps all of it in one.
    pub fn annotations(&self) -> usize {
        let own = self.value["metadata"]["annotations"].as_object().into_iter().flatten();
        let own = own.map(|(key, value)| key.len() + value.as_str().map_or(0, str::len)).sum::<usize>();
        // kubectl ends it with a line feed.
        own + LAST_APPLIED.len() + self.value.to_string().len() + 1
    }

    /// # Errors
    /// If it is too large for plain `kubectl apply`.
    pub fn fits_plain_apply(&self) -> Result<(), Error> {
        match self.annotations() {
            size if size <= ANNOTATION_LIMIT => Ok(()),
            size => Err(Error::TooLarge(size)),
        }
    }
}

/// Puts each value in the place of its `${name}`, in one pass: what a value holds is not looked at again.
fn fill(template: &str, fields: &[(&str, Value)]) -> Result<String, Error> {
    let mut parts = template.split("${");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (name, rest) = part.split_once('}').unwrap_or((part, ""));
        let Some((_, value)) = fields.iter().find(|(field, _)| *field == name) else {
            return Err(Error::Template(format!("${{{name}}} has no value")));
        };
        text += &value.to_string();
        text += rest;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Binding, Limits, Scaler};

    const MODULE: &[u8] = b"\0asm\x01\0\0\0";

    fn value(settings: &Settings) -> Value {
        Manifest::new(settings, MODULE).unwrap().value().clone()
    }

    /// What the filter gets to read.
    fn configuration(value: &Value) -> sluice_filter::config::Config {
        let wasm = &value["spec"]["configPatches"][0]["patch"]["value"]["typed_config"]["config"];
        let text = wasm["configuration"]["value"].as_str().unwrap();
        sluice_filter::config::Config::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn the_module_is_inside() {
        let value = value(&Settings::default());
        let wasm = &value["spec"]["configPatches"][0]["patch"]["value"]["typed_config"]["config"];
        let module = wasm["vm_config"]["code"]["local"]["inline_bytes"].as_str().unwrap();
        assert_eq!(STANDARD.decode(module).unwrap(), MODULE);
    }

    #[test]
    fn the_filter_reads_its_configuration() {
        let limits = Limits {
            held_per_route: Some(7),
            held_per_worker: Some(8),
            hold_timeout: Some("1m30s".to_owned()),
        };
        let settings = Settings { limits, ..Settings::default() };
        let read = configuration(&value(&settings));
        assert_eq!(read.scalers, settings.scaler.clusters());
        assert_eq!((read.limits.held_per_route, read.limits.held_per_worker), (7, 8));
        assert_eq!(read.limits.hold_timeout.as_secs(), 90);
        // What is not said is the filter's own default.
        assert_eq!(
            configuration(&self::value(&Settings::default())).limits,
            sluice_filter::config::Config::parse(b"").unwrap().limits
        );
    }

    #[test]
    fn it_is_bound_as_asked() {
        let spec = |binding| value(&Settings { binding, ..Settings::default() })["spec"].clone();
        let selected = spec(Binding::selector(["app=edge"]).unwrap());
        assert_eq!(selected["workloadSelector"], json!({"labels": {"app": "edge"}}));
        assert_eq!(selected.get("targetRefs"), None);
        let targeted = spec(Binding::Gateways(vec!["edge".to_owned()]));
        let reference = json!({"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "edge"});
        assert_eq!(targeted["targetRefs"], json!([reference]));
        assert_eq!(targeted.get("workloadSelector"), None);
        let class = spec(Binding::GatewayClasses(vec!["istio".to_owned()]));
        assert_eq!(class["targetRefs"][0]["kind"], "GatewayClass");
    }

    #[test]
    fn isolated_it_waits_to_be_enabled() {
        let disabled = |isolation| {
            let value = value(&Settings { isolation, ..Settings::default() });
            value["spec"]["configPatches"][1]["patch"]["value"]["disabled"].clone()
        };
        assert_eq!((disabled(false), disabled(true)), (json!(false), json!(true)));
    }

    #[test]
    fn the_services_of_the_links_are_named_for_istiod() {
        let scaler = Scaler { namespace: "x".to_owned(), replicas: 1, ..Scaler::default() };
        let metadata = &value(&Settings { scaler, ..Settings::default() })["metadata"];
        assert_eq!(
            metadata["annotations"]["envoyfilter.istio.io/referenced-services"],
            "x/sluice-scaler-0.x.svc.cluster.local"
        );
    }

    #[test]
    fn something_else_than_a_module_is_refused() {
        let error = Manifest::new(&Settings::default(), b"\x7fELF").unwrap_err();
        assert!(error.to_string().contains("wasm-build.sh"), "{error}");
    }

    #[test]
    fn what_kubectl_cannot_carry_is_said() {
        let with = |bytes: usize| {
            let module = [MODULE, &vec![0; bytes]].concat();
            Manifest::new(&Settings::default(), &module).unwrap().fits_plain_apply()
        };
        with(180_000).unwrap();
        let error = with(200_000).unwrap_err().to_string();
        assert!(error.contains("--server-side"), "{error}");
    }

    #[test]
    fn a_value_is_not_looked_into() {
        let fields = [("a", json!("${b}: \"x\"\n")), ("b", json!(1))];
        assert_eq!(fill("x: ${a}\ny: ${b}\n", &fields).unwrap(), "x: \"${b}: \\\"x\\\"\\n\"\ny: 1\n");
        assert!(fill("${c}", &fields).unwrap_err().to_string().contains("${c}"));
    }
}

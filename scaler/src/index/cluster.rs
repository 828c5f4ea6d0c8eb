//! How a target is named as a cluster in the gateway's Envoy.

use sluice_core::route::ClusterPattern;
use std::str::FromStr;

/// A cluster's name with places for what differs from target to target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterTemplate {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Service,
    Namespace,
    Port,
    Subset,
}

/// What is wrong with a template.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClusterTemplateError {
    /// A place that does not exist.
    #[error("{{{0}}} is not known; use {{service}}, {{namespace}}, {{port}} or {{subset}}")]
    Unknown(String),
    /// A brace that nothing closes.
    #[error("a '{{' has no '}}'; close it")]
    Open,
    /// More than one subset: where the first ends could not be told.
    #[error("{{subset}} is there twice; use it once")]
    TwoSubsets,
}

// === impl ClusterTemplate ===

impl ClusterTemplate {
    /// Istio's names, of any subset.
    pub const ISTIO: &str = "outbound|{port}|{subset}|{service}.{namespace}.svc.cluster.local";

    /// Whether a target's name depends on its port's number.
    pub fn needs_port(&self) -> bool {
        self.parts.contains(&Part::Port)
    }

    /// The names of a target's cluster. `port` counts only where [`ClusterTemplate::needs_port`].
    pub fn name(&self, service: &str, namespace: &str, port: u16) -> ClusterPattern {
        let mut prefix = String::new();
        let mut suffix = None;
        for part in &self.parts {
            let text = suffix.as_mut().unwrap_or(&mut prefix);
            match part {
                Part::Text(fixed) => text.push_str(fixed),
                Part::Service => text.push_str(service),
                Part::Namespace => text.push_str(namespace),
                Part::Port => text.push_str(&port.to_string()),
                Part::Subset => suffix = Some(String::new()),
            }
        }
        let bytes = |text: String| text.into_bytes().into_boxed_slice();
        ClusterPattern { prefix: bytes(prefix), suffix: suffix.map(bytes) }
    }
}

impl FromStr for ClusterTemplate {
    type Err = ClusterTemplateError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((fixed, tail)) = rest.split_once('{') {
            let (place, tail) = tail.split_once('}').ok_or(ClusterTemplateError::Open)?;
            if !fixed.is_empty() {
                parts.push(Part::Text(fixed.to_owned()));
            }
            parts.push(match place {
                "service" => Part::Service,
                "namespace" => Part::Namespace,
                "port" => Part::Port,
                "subset" if parts.contains(&Part::Subset) => return Err(ClusterTemplateError::TwoSubsets),
                "subset" => Part::Subset,
                unknown => return Err(ClusterTemplateError::Unknown(unknown.to_owned())),
            });
            rest = tail;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self { parts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn istios_names_are_matched_with_any_subset() {
        let template: ClusterTemplate = ClusterTemplate::ISTIO.parse().unwrap();
        assert!(template.needs_port());
        let name = template.name("shop", "store", 8080);
        assert!(name.matches(b"outbound|8080||shop.store.svc.cluster.local"));
        assert!(name.matches(b"outbound|8080|v2|shop.store.svc.cluster.local"));
        assert!(!name.matches(b"outbound|8081||shop.store.svc.cluster.local"));
        assert!(!name.matches(b"outbound|8080|a|b|shop.store.svc.cluster.local"));
    }

    #[test]
    fn a_plain_envoys_names_need_no_port() {
        let template: ClusterTemplate = "{namespace}-{service}".parse().unwrap();
        assert!(!template.needs_port());
        let name = template.name("shop", "store", 0);
        assert_eq!((&*name.prefix, name.suffix), (&b"store-shop"[..], None));
        let fixed: ClusterTemplate = "app".parse().unwrap();
        assert!(fixed.name("shop", "store", 0).matches(b"app"));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, wrong) in [
            ("{svc}", ClusterTemplateError::Unknown("svc".to_owned())),
            ("a{service", ClusterTemplateError::Open),
            ("{subset}|{subset}", ClusterTemplateError::TwoSubsets),
        ] {
            assert_eq!(text.parse::<ClusterTemplate>(), Err(wrong));
        }
    }
}

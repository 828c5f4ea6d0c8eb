//! Objects from a file's text.

use super::{Object, ObjectKind, ObjectRef, Problem, is_body};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// What a file holds.
#[derive(Debug, Default)]
pub(super) struct Content {
    /// The objects that the scaler wants to know and that read well, in the file's order.
    pub(super) objects: Vec<(ObjectRef, Object)>,
    /// Those that are there, by their names, but do not read.
    pub(super) broken: Vec<ObjectRef>,
    /// Something is there that cannot even be named, so that nobody knows what the file lacks.
    pub(super) is_unclear: bool,
    /// What is wrong.
    pub(super) problems: Vec<Problem>,
}

/// What a field's error is about, while it is being read.
struct Place<'a> {
    source: &'a str,
    /// Where in the file: `document 2`, `document 1 items[3]`.
    part: String,
}

/// Reads all documents of a file. `source` is its name in problems.
pub(super) fn read(source: &str, text: &str) -> Content {
    let mut content = Content::default();
    // The crate's limits are meant for small configurations; ten thousand objects in one file are no attack
    // here. What bounds memory (aliases, depth, bytes) stays as it is.
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_documents: 1_000_000,
            max_events: 200_000_000,
            max_nodes: 100_000_000,
            max_total_scalar_bytes: 1 << 30,
        },
        with_snippet: false,
        // A namespace may well be called `n` or `no`.
        strict_booleans: true,
    };
    match serde_saphyr::from_multiple_with_options::<Value>(text, options) {
        Ok(documents) => {
            for (number, document) in documents.into_iter().enumerate() {
                let part = format!("document {}", number + 1);
                read_object(&Place { source, part }, document, &mut content);
            }
        }
        Err(error) => {
            content.is_unclear = true;
            let message = format!("not YAML: {error}; what the file said before stays");
            content.problems.push(Problem { source: source.to_owned(), field: String::new(), message });
        }
    }
    content
}

fn read_object(place: &Place<'_>, document: Value, content: &mut Content) {
    let text = |field: &str| document.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    if kind == "List" && api_version == "v1" {
        return read_list(place, document, content);
    }
    if kind.is_empty() {
        content.is_unclear = true;
        content
            .problems
            .push(place.problem("kind", "is missing: say which kind of object this is".to_owned()));
        return;
    }
    // Other kinds belong in the same files: Deployments, ScaledObjects.
    let Some(kind) = ObjectKind::ALL.into_iter().find(|known| known.name() == kind) else { return };
    let group = |version: &str| version.rsplit_once('/').map_or(String::new(), |(group, _)| group.to_owned());
    if group(&api_version) != group(kind.api_version()) {
        return;
    }
    let reference = named(kind, &document);
    if api_version != kind.api_version() {
        let message =
            format!("{api_version:?} of a {} is not known; {:?} is", kind.name(), kind.api_version());
        content.problems.push(place.problem("apiVersion", message));
        content.give_up(reference);
        return;
    }
    let mut unknown = Vec::new();
    let object = match kind {
        ObjectKind::HttpScaledObject => {
            typed(document, &mut unknown).map(|it| Object::HttpScaledObject(Box::new(it)))
        }
        ObjectKind::InterceptorRoute => {
            typed(document, &mut unknown).map(|it| Object::InterceptorRoute(Box::new(it)))
        }
        ObjectKind::Service => typed(document, &mut unknown).map(|it| Object::Service(Box::new(it))),
        ObjectKind::EndpointSlice => {
            typed(document, &mut unknown).map(|it| Object::EndpointSlice(Box::new(it)))
        }
        ObjectKind::ConfigMap => typed(document, &mut unknown).map(|it| Object::ConfigMap(Box::new(it))),
    };
    let name = reference.as_ref().map_or(kind.name().to_owned(), ToString::to_string);
    for field in unknown {
        let message = format!("of {name} is no field of it, and does nothing; correct its name or remove it");
        content.problems.push(place.problem(&field, message));
    }
    match object {
        Ok(Object::ConfigMap(map)) if !is_body(&map.metadata) => {}
        Ok(object) => match object.reference() {
            Some(reference) => content.objects.push((reference, object)),
            None => {
                let message = format!("is missing: give the {} a name", kind.name());
                content.problems.push(place.problem("metadata.name", message));
                content.give_up(None);
            }
        },
        Err((field, error)) => {
            let message = format!("of {name}: {error}; what this object said before stays");
            content.problems.push(place.problem(&field, message));
            content.give_up(reference);
        }
    }
}

fn read_list(place: &Place<'_>, mut document: Value, content: &mut Content) {
    let items = document.get_mut("items").map(Value::take);
    match items {
        Some(Value::Array(items)) => {
            for (number, item) in items.into_iter().enumerate() {
                let place = Place { source: place.source, part: format!("{} items[{number}]", place.part) };
                // A list in a list is nothing that Kubernetes has, and would recurse as deep as the file likes.
                if item.get("kind").and_then(Value::as_str) == Some("List") {
                    content
                        .problems
                        .push(place.problem("kind", "is List: a list cannot hold lists".to_owned()));
                    content.is_unclear = true;
                } else {
                    read_object(&place, item, content);
                }
            }
        }
        _ => {
            content.is_unclear = true;
            content.problems.push(place.problem("items", "is missing or no sequence".to_owned()));
        }
    }
}

/// The name that a document claims, even if the rest of it does not read.
fn named(kind: ObjectKind, document: &Value) -> Option<ObjectRef> {
    let meta = document.get("metadata")?;
    let text = |field: &str| meta.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
    let name = text("name")?.to_owned();
    Some(ObjectRef { kind, namespace: text("namespace").unwrap_or("default").to_owned(), name })
}

/// The object, or the path of the field that is wrong and what is wrong with it. Fields that it does not have are
/// added to `unknown`: a misspelt rule would otherwise select every request, without a word.
fn typed<T: DeserializeOwned>(document: Value, unknown: &mut Vec<String>) -> Result<T, (String, String)> {
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(document, &mut track);
    let read = serde_ignored::deserialize(tracked, |path| unknown.push(written(&path)));
    // Our own kinds leave these two to the one who reads them.
    unknown.retain(|field| field != "apiVersion" && field != "kind");
    read.map_err(|error| {
        let path = track.path().to_string();
        (if path == "." { String::new() } else { path }, error.to_string())
    })
}

/// A field's path as Kubernetes writes it: `spec.ports[0].name`.
fn written(path: &serde_ignored::Path<'_>) -> String {
    use serde_ignored::Path;
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}[{index}]", written(parent)),
        Path::Map { parent: Path::Root, key } => key.clone(),
        Path::Map { parent, key } => format!("{}.{key}", written(parent)),
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => {
            written(parent)
        }
    }
}

// === impl Content ===

impl Content {
    fn give_up(&mut self, reference: Option<ObjectRef>) {
        match reference {
            Some(reference) => self.broken.push(reference),
            None => self.is_unclear = true,
        }
    }
}

// === impl Place ===

impl Place<'_> {
    fn problem(&self, field: &str, message: String) -> Problem {
        Problem { source: format!("{}, {}", self.source, self.part), field: field.to_owned(), message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "{apiVersion: v1, kind: Service, metadata: {name: a, namespace: n}}";

    fn names(content: &Content) -> Vec<String> {
        content.objects.iter().map(|(reference, _)| reference.to_string()).collect()
    }

    #[test]
    fn documents_lists_and_json_are_read_and_other_kinds_are_left_alone() {
        let text = format!(
            "---\n{GOOD}\n---\n# nothing\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: d}}\n---\n\
             apiVersion: v1\nkind: List\nitems:\n  - {{apiVersion: http.keda.sh/v1alpha1, kind: HTTPScaledObject, \
             metadata: {{name: b}}, spec: {{scaleTargetRef: {{service: b, port: 80}}}}}}\n---\n\
             {{\"apiVersion\": \"discovery.k8s.io/v1\", \"kind\": \"EndpointSlice\", \"metadata\": {{\"name\": \"c\"}}, \
             \"addressType\": \"IPv4\", \"endpoints\": []}}\n"
        );
        let content = read("f.yaml", &text);
        assert_eq!(content.problems, []);
        assert_eq!(names(&content), ["Service n/a", "HTTPScaledObject default/b", "EndpointSlice default/c"]);
    }

    #[test]
    fn a_wrong_field_is_named_with_its_path_and_the_other_documents_are_read() {
        let text = format!(
            "apiVersion: http.keda.sh/v1alpha1\nkind: HTTPScaledObject\nmetadata: {{name: b}}\nspec:\n  \
             scaleTargetRef: {{service: b, port: http}}\n---\n{GOOD}"
        );
        let content = read("f.yaml", &text);
        assert_eq!(names(&content), ["Service n/a"]);
        assert_eq!(content.broken.len(), 1);
        assert!(!content.is_unclear);
        let problem = &content.problems[0];
        assert_eq!(problem.source, "f.yaml, document 1");
        assert_eq!(problem.field, "spec.scaleTargetRef.port");
        assert!(problem.message.contains("HTTPScaledObject default/b"), "{}", problem.message);
    }

    #[test]
    fn a_misspelt_field_is_named_and_the_object_is_read() {
        let text = "
apiVersion: http.keda.sh/v1alpha1
kind: HTTPScaledObject
metadata: {name: b, labels: {any: thing}}
spec:
  pathPrefix: [/api]
  scaleTargetRef: {service: b, port: 80, portNumber: 80}
status: {conditions: [], other: 1}
---
apiVersion: v1
kind: Service
metadata: {name: a}
spec: {ports: [{port: 80, targetport: 81}]}
";
        let content = read("f.yaml", text);
        assert_eq!(names(&content), ["HTTPScaledObject default/b", "Service default/a"]);
        let fields: Vec<&str> = content.problems.iter().map(|problem| problem.field.as_str()).collect();
        assert_eq!(
            fields,
            ["spec.pathPrefix", "spec.scaleTargetRef.portNumber", "status.other", "spec.ports[0].targetport"]
        );
        assert!(content.problems[0].message.contains("HTTPScaledObject default/b"));
    }

    #[test]
    fn what_is_no_yaml_is_named_with_its_place() {
        let content = read("f.yaml", &format!("{GOOD}\n---\na: [1\nb: 2\n"));
        assert!(content.is_unclear);
        assert!(content.objects.is_empty());
        assert!(content.problems[0].message.contains("line"), "{}", content.problems[0].message);
    }

    #[test]
    fn a_document_that_cannot_be_named_makes_the_file_unclear() {
        for text in [
            "{apiVersion: v1, kind: Service, metadata: {}}",
            "{a: 1}",
            "just text",
            "{apiVersion: v1, kind: List}",
        ] {
            let content = read("f.yaml", &format!("{GOOD}\n---\n{text}"));
            assert!(content.is_unclear, "{text}");
            assert_eq!(content.problems.len(), 1, "{text}");
            assert_eq!(names(&content), ["Service n/a"], "{text}");
        }
    }

    #[test]
    fn another_version_of_a_known_kind_is_said_and_another_groups_kind_is_not_ours() {
        let content = read("f", "{apiVersion: http.keda.sh/v9, kind: InterceptorRoute, metadata: {name: a}}");
        assert_eq!(content.problems[0].field, "apiVersion");
        assert_eq!(content.broken.len(), 1);
        let content = read("f", "{apiVersion: serving.knative.dev/v1, kind: Service, metadata: {name: a}}");
        assert!(content.problems.is_empty() && content.objects.is_empty());
    }

    #[test]
    fn of_config_maps_only_those_with_the_label_are_read() {
        let map = |name: &str, label: &str| {
            format!(
                "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {name}, labels: {{{label}}}}}, data: {{a: b}}}}"
            )
        };
        let maps = [
            map("page", "http.keda.sh/response-body: \"true\""),
            map("off", "http.keda.sh/response-body: \"false\""),
            map("other", "app: shop"),
        ];
        let content = read("f.yaml", &maps.join("\n---\n"));
        assert_eq!(content.problems, []);
        assert_eq!(names(&content), ["ConfigMap default/page"]);
    }

    #[test]
    fn a_file_of_ten_thousand_documents_is_read() {
        let text = format!("{GOOD}\n---\n").repeat(10_000);
        let content = read("f", &text);
        assert_eq!((content.objects.len(), content.problems.len()), (10_000, 0));
    }
}

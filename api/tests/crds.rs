//! The definitions that are installed are the ones that the types make.
//!
//! `SLUICE_GENERATE=1 cargo test -p sluice-api --test crds` writes them.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;
use std::{env, fs, path::PathBuf};

const HEAD: &str = "\
# Made from the types of the crate `api`: change those, and run
# SLUICE_GENERATE=1 cargo test -p sluice-api --test crds
";

fn path(definition: &CustomResourceDefinition) -> PathBuf {
    let spec = &definition.spec;
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../install/crds");
    folder.join(format!("{}_{}.yaml", spec.group, spec.names.plural))
}

fn yaml(definition: &CustomResourceDefinition) -> String {
    let options = serde_saphyr::ser_options! { folded_wrap_chars: 100 };
    let mut value = serde_json::to_value(definition).expect("the definition is written");
    write_whole_numbers_as_such(&mut value);
    let body = serde_saphyr::to_string_with_options(&value, options).expect("the definition is written");
    format!("{HEAD}{body}")
}

/// Bounds are floating-point numbers in the type, and 1.0 is no number of replicas to anybody who reads it.
fn write_whole_numbers_as_such(value: &mut Value) {
    match value {
        Value::Number(number) => {
            if let Some(whole) = number.as_f64().filter(|number| number.fract() == 0.0) {
                *value = Value::from(whole as i64);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(write_whole_numbers_as_such),
        Value::Object(fields) => fields.values_mut().for_each(write_whole_numbers_as_such),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

#[test]
fn the_definitions_that_are_installed_are_the_types() {
    for definition in sluice_api::definitions() {
        let (path, wanted) = (path(&definition), yaml(&definition));
        if env::var_os("SLUICE_GENERATE").is_some() {
            fs::create_dir_all(path.parent().expect("it is in a folder")).expect("the folder can be made");
            fs::write(&path, &wanted).expect("the file can be written");
        }
        let found = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            found == wanted,
            "{} is not what the types make; write it anew: SLUICE_GENERATE=1 cargo test -p sluice-api --test crds",
            path.display()
        );
        let read: CustomResourceDefinition = serde_saphyr::from_str(&found).expect("the file reads");
        assert_eq!(read, definition, "{} says something else than the types", path.display());
    }
}

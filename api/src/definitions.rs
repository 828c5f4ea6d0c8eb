//! The objects' definitions (CRDs), made from the types.

use crate::{HttpScaledObject, InterceptorRoute};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;

/// The definitions of both objects, as they are to be installed.
pub fn definitions() -> [CustomResourceDefinition; 2] {
    [HttpScaledObject::crd(), InterceptorRoute::crd()].map(finished)
}

/// What the types cannot say.
fn finished(mut definition: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut definition.spec.versions {
        let schema = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut());
        if let Some(schema) = schema {
            // The type's name, which is not the kind's.
            schema.title = None;
            tidy(schema);
        }
    }
    definition
}

/// A field that may be left out is not one that may be `null`: where a schema allows `null`, the API server keeps it,
/// and `has()` in a rule says that the field is there. Where it does not, the API server takes `null` for left out, as
/// it does under the add-on's definitions.
fn tidy(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    // Lines end where the source's do.
    if let Some(description) = &mut schema.description {
        *description = description.split_whitespace().collect::<Vec<_>>().join(" ");
    }
    schema.properties.iter_mut().flat_map(|properties| properties.values_mut()).for_each(tidy);
    match &mut schema.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => tidy(items),
        Some(JSONSchemaPropsOrArray::Schemas(items)) => items.iter_mut().for_each(tidy),
        None => {}
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        tidy(values);
    }
}

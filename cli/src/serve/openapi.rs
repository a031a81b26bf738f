//! What can be asked, as OpenAPI spells it: from the table of routes.

use super::routes::{ALL, Param, Route, Takes, Who};
use serde_json::{Map, Value, json};

/// The page.
pub fn page() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for route in ALL {
        let entry = paths.entry(route.path).or_insert_with(|| json!({}));
        if let Value::Object(methods) = entry {
            methods.insert(route.method.to_lowercase(), operation(route));
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "littoral serve",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "How databases stand that are streamed to an object store, and what an administrator may do.",
        },
        "paths": paths,
        "components": {
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
            "schemas": {
                "Error": {
                    "type": "object",
                    "required": ["error"],
                    "properties": {
                        "error": { "type": "string" },
                        "way_out": { "type": ["string", "null"] },
                        "exit": { "type": "string" },
                    },
                },
            },
        },
    })
}

fn operation(route: &Route) -> Value {
    let mut params: Vec<Value> = route.params.iter().map(|param| parameter(param, "query", false)).collect();
    if let Some(name) = route.path.split_once('{').and_then(|(_, name)| name.strip_suffix('}')) {
        params.push(json!({
            "name": name, "in": "path", "required": true, "schema": { "type": "string", "pattern": "^([0-9]+|all)$" },
        }));
    }
    let error = json!({
        "description": "Why it is not done, and what to do",
        "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Error" } } },
    });
    let kind = route.answers.split(';').next().unwrap_or(route.answers);
    let done = json!({ "description": route.help, "content": { kind: {} } });
    let mut responses: Map<String, Value> = Map::new();
    responses.insert("200".to_owned(), done.clone());
    if route.who == Who::Administrator {
        responses.insert("202".to_owned(), done);
    }
    for status in ["400", "401", "403", "404", "405", "408", "409", "413", "421", "422", "500", "503"] {
        responses.insert(status.to_owned(), error.clone());
    }
    let mut operation = json!({ "summary": route.help, "parameters": params, "responses": responses });
    if route.who == Who::Administrator {
        operation["security"] = json!([{ "token": [] }]);
    }
    operation
}

fn parameter(param: &Param, place: &str, required: bool) -> Value {
    let schema = match param.takes {
        Takes::Number(least, most) => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Takes::Switch => json!({ "type": "boolean" }),
        Takes::Text(most) => json!({ "type": "string", "minLength": 1, "maxLength": most }),
    };
    json!({ "name": param.name, "in": place, "required": required, "description": param.help, "schema": schema })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_on_the_page() {
        let page = page();
        for route in ALL {
            let operation = &page["paths"][route.path][route.method.to_lowercase()];
            assert!(operation["responses"]["200"].is_object(), "{route:?}");
            assert_eq!(operation["security"].is_array(), route.who == Who::Administrator, "{route:?}");
            let in_path =
                operation["parameters"].as_array().unwrap().iter().filter(|param| param["in"] == "path").count();
            assert_eq!(in_path, usize::from(route.path.contains('{')));
        }
    }
}

//! The fields of a create or update request, each checked by itself.

use serde_json::{Map, Value};

use super::{
    ApiLimits, error::FieldErrors, fields::Fields, record::READ_ONLY, variables::VarsInput,
};
use crate::{
    limits,
    name::{FunctionName, HandlerName, PublicDomain, ServiceName},
    service::{Egress, EventFormat},
};

/// What the fields of a request are checked against.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// Names that `function_runtime` may have.
    pub runtimes: &'a [String],
    /// Names that `oci_runtime` may have, besides `default`.
    pub oci_runtimes: &'a [String],
    /// See [`ApiLimits`].
    pub limits: ApiLimits,
}

/// What `oci_runtime` is called when the platform chooses.
pub(crate) const DEFAULT_OCI_RUNTIME: &str = "default";

/// The fields that a request names; the others stay as they are, or get their default.
#[derive(Debug, Default)]
pub(super) struct Input {
    pub(super) name: Option<ServiceName>,
    pub(super) function_name: Option<FunctionName>,
    pub(super) public_domain: Option<PublicDomain>,
    pub(super) runtime: Option<String>,
    pub(super) handler: Option<HandlerName>,
    pub(super) code: Option<String>,
    pub(super) event_format: Option<EventFormat>,
    pub(super) memory_mb: Option<u32>,
    pub(super) cpu_shares: Option<u32>,
    pub(super) egress: Option<Egress>,
    pub(super) oci_runtime: Option<Option<String>>,
    pub(super) env_vars: Option<VarsInput>,
    pub(super) min_replicas: Option<u32>,
    pub(super) max_replicas: Option<u32>,
    pub(super) rate_limit: Option<Option<u32>>,
    pub(super) rate_burst: Option<Option<u32>>,
}

impl Input {
    /// Fields that a complete description of a service must have.
    pub(super) const REQUIRED: [&str; 3] = ["name", "function_runtime", "function_code"];

    /// Checks every field by itself.
    ///
    /// # Errors
    /// All that is wrong: `{"name": ["This field is required."], "memory_mb": […]}`.
    pub(super) fn read(
        object: Map<String, Value>,
        required: &[&str],
        rules: &Rules<'_>,
    ) -> Result<Self, FieldErrors> {
        let mut fields = Fields::of(object);
        fields.require(required);
        if fields.text("deploy_type").is_some_and(|deploy_type| deploy_type != "FUNCTION") {
            fields.refuse("deploy_type", "Only FUNCTION is supported.");
        }
        let formats = [EventFormat::Grid, EventFormat::LambdaV2];
        let format_names = formats.map(EventFormat::as_str);
        let egresses = [Egress::Public, Egress::None];
        let egress_names = egresses.map(Egress::as_str);
        let oci_runtimes: Vec<_> = std::iter::once(DEFAULT_OCI_RUNTIME)
            .chain(rules.oci_runtimes.iter().map(String::as_str))
            .collect();
        let input = Self {
            name: fields.name("name"),
            function_name: fields.name("function_name"),
            public_domain: fields.name("public_domain"),
            runtime: fields.choice("function_runtime", rules.runtimes),
            handler: handler(&mut fields),
            code: code(&mut fields, rules.limits.code_bytes),
            event_format: fields
                .choice("event_format", &format_names)
                .and_then(|name| formats.into_iter().find(|format| format.as_str() == name)),
            memory_mb: fields.integer("memory_mb", limits::MEMORY_MB),
            cpu_shares: fields.integer("cpu_shares", limits::CPU_SHARES),
            egress: fields
                .choice("egress", &egress_names)
                .and_then(|name| egresses.into_iter().find(|egress| egress.as_str() == name)),
            oci_runtime: fields
                .choice("oci_runtime", &oci_runtimes)
                .map(|name| (name != DEFAULT_OCI_RUNTIME).then_some(name)),
            env_vars: VarsInput::read(&mut fields),
            min_replicas: fields.integer("min_replicas", limits::REPLICAS),
            max_replicas: fields.integer("max_replicas", 1..=*limits::REPLICAS.end()),
            rate_limit: fields.integer_or_null("rate_limit", limits::RATE),
            rate_burst: fields.integer_or_null("rate_burst", 1..=*limits::RATE.end()),
        };
        fields.finish(&READ_ONLY)?;
        Ok(input)
    }
}

/// Its type takes letters of every script, since earlier versions did; new ones are as the contract
/// says.
fn handler(fields: &mut Fields) -> Option<HandlerName> {
    let handler = fields.name::<HandlerName>("function_handler")?;
    if handler.as_str().is_ascii() {
        return Some(handler);
    }
    fields.refuse("function_handler", "Use letters a-z and A-Z, digits, _ and $ only.");
    None
}

fn code(fields: &mut Fields, limit: usize) -> Option<String> {
    let code = fields.text("function_code")?;
    if code.len() <= limit {
        return Some(code);
    }
    let limit = match limit % 1024 {
        0 => format!("{} KB", limit / 1024),
        _ => format!("{limit} bytes"),
    };
    fields.refuse("function_code", format!("Function code exceeds {limit}."));
    None
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    /// Reads a request with the rules of these tests: one runtime, 1000 bytes of code.
    pub(in crate::api) fn read(value: Value, required: &[&str]) -> Result<Input, FieldErrors> {
        let Value::Object(object) = value else { unreachable!() };
        let runtimes = ["node18".to_owned()];
        let rules = Rules {
            runtimes: &runtimes,
            oci_runtimes: &["runsc".to_owned()],
            limits: ApiLimits { code_bytes: 1000 },
        };
        Input::read(object, required, &rules)
    }

    #[test]
    fn a_limit_that_is_no_multiple_of_a_kilobyte_is_told_in_bytes() {
        let errors = read(json!({"function_code": "x".repeat(1001)}), &[]).expect_err("too long");
        assert_eq!(errors["function_code"], json!(["Function code exceeds 1000 bytes."]));
        assert!(read(json!({"function_code": format!("xx{}", "é".repeat(499))}), &[]).is_ok());
        assert!(read(json!({"function_code": format!("xx{}", "é".repeat(500))}), &[]).is_err());
    }
}

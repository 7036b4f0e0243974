//! Schemas of what requests may carry. They state the rules that the readers of requests apply, with
//! the numbers of `limits`.

use std::ops::RangeInclusive;

use utoipa::openapi::{
    Object, Schema,
    schema::{
        AdditionalProperties, AnyOfBuilder, ArrayBuilder, KnownFormat, ObjectBuilder, SchemaFormat,
        SchemaType, Type,
    },
};

use crate::{
    api::{
        input::{DEFAULT_OCI_RUNTIME, Input, Rules},
        openapi::VISIBLE,
        record::READ_ONLY,
        tokens::READ_ONLY as TOKEN_READ_ONLY,
        variables::FIELD,
    },
    environment::MASK,
    limits,
    name::{RESERVED_KEYS, RESERVED_PREFIXES},
    service::{Egress, EventFormat},
};

/// A DNS label.
const LABEL: &str = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?";
/// Labels of any case, separated by dots.
const HOST: &str = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*\.?";
const USER: &str = "[A-Za-z0-9@.+_-]+";
const FUNCTION_NAME: &str = "[a-z0-9][a-z0-9_-]*";
const HANDLER: &str = r"[A-Za-z_$][A-Za-z0-9_$]*(\.[A-Za-z_$][A-Za-z0-9_$]*)?";

/// The schema of an operation's body, and whether there must be one.
pub(super) fn of(operation: &str) -> Option<(&'static str, bool)> {
    match operation {
        "services_create" => Some(("ServiceInput", true)),
        "services_update" => Some(("ServiceInput", true)),
        "services_partial_update" => Some(("ServicePatch", false)),
        "env_vars_create" => Some(("EnvVarInput", true)),
        "env_vars_update" => Some(("EnvVarValue", true)),
        "env_vars_partial_update" => Some(("EnvVarPatch", false)),
        "keys_rotate" => Some(("Nothing", false)),
        "deployments_create" => Some(("Nothing", false)),
        "services_rollback" => Some(("Rollback", false)),
        "tokens_create" => Some(("TokenInput", true)),
        "services_invoke" => Some(("Invocation", false)),
        _ => None,
    }
}

/// All of them, by name.
pub(super) fn schemas(rules: &Rules<'_>) -> [(&'static str, Object); 9] {
    let whole = Input::REQUIRED.iter().fold(service(rules), |body, name| body.required(*name));
    let rollback = closed().property(
        "deployment",
        string("What it ran is taken up again; else what was live before the live one.")
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Uuid))),
    );
    [
        ("ServiceInput", whole.build()),
        ("ServicePatch", service(rules).build()),
        ("EnvVarInput", sent_back(variable()).required("key").required("value").build()),
        ("EnvVarValue", sent_back(variable()).required("value").build()),
        ("EnvVarPatch", sent_back(variable()).build()),
        ("Nothing", closed().build()),
        ("Rollback", rollback.build()),
        ("TokenInput", token().build()),
        ("Invocation", invocation(rules)),
    ]
}

fn token() -> ObjectBuilder {
    let name = format!(r"^[^\x00-\x1f\x7f-\x9f]*{VISIBLE}[^\x00-\x1f\x7f-\x9f]*$");
    let name = string("What it is for.").pattern(Some(name));
    let at = string("From when on it is refused; in the future.");
    let at = at.format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)));
    let user = text("To whom it belongs; the caller when absent.", USER, 150);
    let admin = ObjectBuilder::new().schema_type(Type::Boolean);
    let days = integer("After how many days it is refused.", limits::TOKEN_DAYS);
    let body = closed()
        .property("name", name.max_length(Some(limits::TOKEN_NAME_CHARS)))
        .property("user", user)
        .property(
            "is_admin",
            admin.description(Some("For admins: whether it may do what they may.")),
        )
        .property("expires_at", or_null(at))
        .property("expires_in_days", or_null(days))
        .required("name");
    read_only(body, &TOKEN_READ_ONLY)
}

fn invocation(rules: &Rules<'_>) -> Object {
    let event = ObjectBuilder::new().schema_type(SchemaType::AnyValue).description(Some(
        "What the handler is called with: any value. What an object lacks of the top level of every \
         event is that of an empty GET request.",
    ));
    closed()
        .property("event", event)
        .property("function_runtime", runtime(rules))
        .property("function_handler", handler())
        .property("function_code", code(rules))
        .build()
}

fn runtime(rules: &Rules<'_>) -> ObjectBuilder {
    choice("What the code is written for.", rules.runtimes.to_vec())
}

fn handler() -> ObjectBuilder {
    text("What is called: `handler`, `module.handler`.", HANDLER, 128)
}

fn code(rules: &Rules<'_>) -> ObjectBuilder {
    let code = format!("The source text, {} bytes of UTF-8 at most.", rules.limits.code_bytes);
    string(&code).pattern(Some(format!(r"^[^\x00]*{VISIBLE}[^\x00]*$")))
}

fn service(rules: &Rules<'_>) -> ObjectBuilder {
    let formats = [EventFormat::Grid, EventFormat::LambdaV2].map(EventFormat::as_str);
    let egresses = [Egress::Public, Egress::None].map(Egress::as_str);
    let default = [DEFAULT_OCI_RUNTIME.to_owned()];
    let oci_runtimes = default.into_iter().chain(rules.oci_runtimes.to_vec());
    let fields = [
        ("name", text("For people; unique among its owner's.", LABEL, 63)),
        ("deploy_type", choice("There is no other.", ["FUNCTION"])),
        ("function_name", text("The end of the address; else the name.", FUNCTION_NAME, 63)),
        ("public_domain", text("The host of the address; else `<name>.localhost`.", HOST, 253)),
        ("function_runtime", runtime(rules)),
        ("function_handler", handler()),
        ("function_code", code(rules)),
        ("event_format", choice("The shape of event and result.", formats)),
        ("memory_mb", integer("Memory, MiB.", limits::MEMORY_MB)),
        ("cpu_shares", integer("Relative weight; 1024 is one core's.", limits::CPU_SHARES)),
        ("egress", choice("What the code may connect to.", egresses)),
        ("oci_runtime", choice("What starts its containers.", oci_runtimes)),
        ("min_replicas", integer("Containers that are kept running.", limits::REPLICAS)),
        ("max_replicas", integer("Containers at most.", 1..=*limits::REPLICAS.end())),
    ];
    let rate = integer("Requests per second; 0 for any number.", limits::RATE);
    let burst = integer("Requests at once, after a quiet time.", 1..=*limits::RATE.end());
    let mut body = closed();
    for (name, schema) in fields {
        body = body.property(name, schema);
    }
    body = body.property("rate_limit", or_null(rate)).property("rate_burst", or_null(burst));
    let vars = ArrayBuilder::new()
        .items(variable().required("key").required("value"))
        .max_items(Some(limits::ENV_VARS))
        .description(Some("What the code finds in its environment: all of it, when it is given."));
    body = body.property(FIELD, vars);
    read_only(body, &READ_ONLY)
}

/// Adds what may be sent back, and is ignored.
fn read_only(mut body: ObjectBuilder, names: &[&str]) -> ObjectBuilder {
    for name in names {
        let anything = ObjectBuilder::new().schema_type(SchemaType::AnyValue).read_only(true);
        body = body.property(*name, anything);
    }
    body
}

fn variable() -> ObjectBuilder {
    let (most, all) = limits::ENV_BYTES;
    let value = format!(
        "{most} bytes of UTF-8 at most, and {all} with all names and values of a function together. \
         `{MASK}` stands for the value that is there."
    );
    let secret = ObjectBuilder::new().schema_type(Type::Boolean).description(Some(
        "Its value is never shown again. When this is not given, it stays as it is.",
    ));
    closed()
        .property("key", text("Its name; some are reserved.", &env_key(), 128))
        .property("value", string(&value).pattern(Some(r"^[^\x00]*$")).max_length(Some(most)))
        .property("is_secret", secret)
}

/// A name that is not reserved, in whatever case.
fn env_key() -> String {
    let any_case = |name: &str| -> String {
        let either = |c: char| match c.is_ascii_alphabetic() {
            true => format!("[{}{}]", c.to_ascii_uppercase(), c.to_ascii_lowercase()),
            false => c.to_string(),
        };
        name.chars().map(either).collect()
    };
    let keys = RESERVED_KEYS.map(|key| format!("{}$", any_case(key)));
    let prefixes = RESERVED_PREFIXES.map(any_case);
    let reserved: Vec<_> = keys.into_iter().chain(prefixes).collect();
    format!("(?!{})[A-Za-z_][A-Za-z0-9_]*", reserved.join("|"))
}

/// What an answer about a variable has besides.
fn sent_back(body: ObjectBuilder) -> ObjectBuilder {
    let anything = ObjectBuilder::new().schema_type(SchemaType::AnyValue).read_only(true);
    body.property("deployment", anything)
}

/// An object without other fields than those that it names.
fn closed() -> ObjectBuilder {
    ObjectBuilder::new()
        .additional_properties(Some(AdditionalProperties::<Schema>::FreeForm(false)))
}

fn string(description: &str) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).description(Some(description))
}

/// A text of so many characters at most that is `expression` from beginning to end.
fn text(description: &str, expression: &str, most: usize) -> ObjectBuilder {
    string(description).pattern(Some(format!("^{expression}$"))).max_length(Some(most))
}

fn choice<T: Into<String>>(
    description: &str,
    choices: impl IntoIterator<Item = T>,
) -> ObjectBuilder {
    string(description).enum_values(Some(choices.into_iter().map(Into::into)))
}

fn integer(description: &str, range: RangeInclusive<u32>) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::Integer)
        .description(Some(description))
        .minimum(Some(*range.start()))
        .maximum(Some(*range.end()))
}

fn or_null(schema: ObjectBuilder) -> AnyOfBuilder {
    AnyOfBuilder::new().item(schema).item(ObjectBuilder::new().schema_type(Type::Null))
}

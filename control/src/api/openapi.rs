//! The API's contract: OpenAPI 3.1, at `/api/v1/openapi.json`, as a page at `/api/docs/`, and from
//! `grid openapi`. Paths and answers stand at the handlers; what requests may carry follows the
//! same rules as the code that reads them (`bodies`), and what every call may be answered is added
//! here.

mod bodies;
mod links;

use std::collections::BTreeSet;

use serde_json::json;
use utoipa::{
    IntoParams, OpenApi,
    openapi::{
        ContentBuilder, HttpMethod, OpenApi as Document, PathItem, RefOr, Required, Response,
        ResponseBuilder, Schema,
        path::Operation,
        request_body::RequestBodyBuilder,
        schema::{ObjectBuilder, Ref, Type},
        security::{ApiKey, ApiKeyValue, SecurityRequirement, SecurityScheme},
    },
};

use utoipa_swagger_ui::{Config, SwaggerUi};

use super::input::Rules;

/// A character that can be seen: neither white space nor a control character.
const VISIBLE: &str = r"[^\x00-\x20\x7f-\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]";
/// Where the contract is.
pub(super) const PATH: &str = "/api/v1/openapi.json";
/// Where it can be read and tried.
const PAGE: &str = "/api/docs";

/// Which page of a list: numbered pages, as Django REST framework has them.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code)] // it is read by the macro only
pub(super) struct PageParameters {
    /// The page's number. One behind the last page is 404.
    #[param(minimum = 1)]
    page: Option<u32>,
    /// Entries of a page; more than 100 are 100.
    #[param(minimum = 1)]
    page_size: Option<u32>,
}

/// On whose services an admin works.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code)]
pub(super) struct OwnerParameter {
    /// For admins: the user for whom they act, or `*` for all users. Everybody else may only name
    /// themselves.
    #[param(pattern = r"^(\*|[A-Za-z0-9@.+_-]{1,150})$")]
    owner: Option<String>,
}

/// For whom an admin makes something.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code)]
pub(super) struct NewOwnerParameter {
    /// For admins: the user to whom it will belong. Everybody else may only name themselves.
    #[param(pattern = "^[A-Za-z0-9@.+_-]{1,150}$")]
    owner: Option<String>,
}

/// Which services, in which order.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code)]
pub(super) struct ServiceFilters {
    /// The exact name.
    name: Option<String>,
    /// `FUNCTION` is the only one.
    #[param(pattern = "^(FUNCTION)?$")]
    deploy_type: Option<String>,
    /// How the service is.
    #[param(pattern = "^(live|deploying|failed|failing)?$")]
    status: Option<String>,
    /// `name`, `created_at` or `updated_at`, with `-` in front for the greatest first; several are
    /// separated by commas.
    #[param(pattern = "^(-?(name|created_at|updated_at)(,-?(name|created_at|updated_at))*)?$")]
    ordering: Option<String>,
}

/// Makes a creation repeatable.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code)]
pub(super) struct IdempotencyParameter {
    /// What the client calls this attempt. One that is repeated within a day gets the service that
    /// the first one made.
    #[param(rename = "Idempotency-Key", nullable = false, pattern = "^[!-~]{1,255}$")]
    idempotency_key: Option<String>,
}

/// The service in the path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[allow(dead_code)]
pub(super) struct ServiceParameter {
    /// The service's id.
    id: uuid::Uuid,
}

/// The deployment in the path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[allow(dead_code)]
pub(super) struct DeploymentParameter {
    /// The deployment's id.
    deployment: uuid::Uuid,
}

/// The token in the path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[allow(dead_code)]
pub(super) struct TokenParameter {
    /// The token's id.
    id: uuid::Uuid,
}

/// Which entries of the audit log.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code)]
pub(super) struct AuditFilters {
    /// Of calls that this user made; only admins may name others.
    #[param(pattern = "^([A-Za-z0-9@.+_-]{1,150})?$")]
    user: Option<String>,
    /// About this service: its id.
    #[param(pattern = "^([0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})?$")]
    service: Option<String>,
    /// With this action, such as `service.update`.
    action: Option<String>,
}

/// The environment variable in the path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[allow(dead_code)]
pub(super) struct VariableParameter {
    /// The variable's key.
    #[param(pattern = "^[A-Za-z_][A-Za-z0-9_]{0,127}$")]
    key: String,
}

/// Which lines.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code)]
pub(super) struct LogParameters {
    /// So many of the newest lines; 100 when absent.
    #[param(minimum = 0, maximum = 10000)]
    tail: Option<u32>,
    /// None before this time (RFC 3339), or before so long ago: `30s`, `15m`, `2h`, `1d`.
    #[param(
        pattern = r"^([12]\d{3}-((0[1-9]|1[0-2])-(0[1-9]|1\d|2[0-8])|(0[13-9]|1[0-2])-(29|30)|(0[13578]|1[02])-31)[Tt]([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,9})?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)|(\d{1,6}[smhd]){1,4})?$"
    )]
    since: Option<String>,
    /// None after it.
    #[param(
        pattern = r"^([12]\d{3}-((0[1-9]|1[0-2])-(0[1-9]|1\d|2[0-8])|(0[13-9]|1[0-2])-(29|30)|(0[13578]|1[02])-31)[Tt]([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,9})?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)|(\d{1,6}[smhd]){1,4})?$"
    )]
    until: Option<String>,
    /// Goes on with the lines that come: as JSON line by line, as text, or as server-sent events
    /// when `Accept` asks for them.
    #[param(pattern = "^(true|false|1|0)?$")]
    follow: Option<String>,
    /// Only lines of this request.
    #[param(max_length = 128)]
    request_id: Option<String>,
    /// `text` for one line each, without JSON.
    #[param(pattern = "^(json|text)?$")]
    format: Option<String>,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Grid Functions admin API",
        description = "Create, update, deploy, test and observe functions. Conventions are those \
            of Django REST framework: trailing slashes, `Authorization: Token …`, numbered pages, \
            errors as `{\"detail\": …}` or `{\"field\": [\"message\"]}`.\n\nWhat breaks this \
            contract is answered with 400. What keeps it, but conflicts with what is there or with \
            other fields, is answered with 409 in the same shape.\n\nAnswers about a service carry \
            an `ETag`; a request that sends it back in `If-Match` changes the service only when \
            nobody else has changed it since (else 412).",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    tags(
        (name = "services", description = "Functions, and how they do"),
        (name = "environment", description = "What a function's code finds in its environment"),
        (name = "deployments", description = "What was deployed, and going back"),
        (name = "users", description = "Tokens, and who changed what"),
        (name = "platform", description = "What this Grid has, and how it does"),
    ),
)]
struct Contract;

/// The contract as JSON, with what the routes bring.
pub(super) fn written(routes: Document, rules: &Rules<'_>) -> String {
    complete(Contract::openapi().merge_from(routes), rules).to_json().unwrap_or_default()
}

/// The page at `/api/docs/`, which is in the binary and loads nothing from elsewhere.
pub(super) fn page<S: Clone + Send + Sync + 'static>() -> axum::Router<S> {
    axum::Router::from(SwaggerUi::new(PAGE).config(Config::from(PATH)))
}

/// Adds what stands at no handler: bodies of requests, credentials, and what every call may be
/// answered.
fn complete(mut document: Document, rules: &Rules<'_>) -> Document {
    let components = document.components.get_or_insert_default();
    let token = ApiKey::Header(ApiKeyValue::with_description(
        "Authorization",
        "`Token <token>`: that of a user, or the operator's own",
    ));
    components.add_security_scheme("token", SecurityScheme::ApiKey(token));
    components.schemas.insert("Detail".to_owned(), detail());
    components.schemas.insert("Errors".to_owned(), errors());
    for (name, schema) in bodies::schemas(rules) {
        components.schemas.insert(name.to_owned(), schema.into());
    }
    for (path, item) in &mut document.paths.paths {
        let guarded = path.starts_with("/api/v1/");
        for (method, operation) in operations(item) {
            if guarded {
                guard(path, &method, operation);
            }
        }
    }
    document
}

fn guard(path: &str, method: &HttpMethod, operation: &mut Operation) {
    operation.security = Some(vec![SecurityRequirement::new("token", Vec::<String>::new())]);
    let id = operation.operation_id.clone().unwrap_or_default();
    if let Some((status, target)) = links::of(&id) {
        links::add(operation, status, target);
    }
    let mut statuses = BTreeSet::from([400, 401, 403, 404, 405, 406, 429, 500, 503]);
    if let Some((body, required)) = bodies::of(&id) {
        let reference = Ref::from_schema_name(body);
        let content = ContentBuilder::new().schema(Some(reference)).build();
        let body = RequestBodyBuilder::new().content("application/json", content);
        let required = if required { Required::True } else { Required::False };
        operation.request_body = Some(RefOr::T(body.required(Some(required)).build()));
        statuses.extend([408, 413, 415]);
    }
    if *method != HttpMethod::Get {
        statuses.insert(409);
        if path.contains("/services/{id}/") {
            statuses.insert(412);
        }
    }
    for status in statuses {
        let responses = &mut operation.responses.responses;
        responses.entry(status.to_string()).or_insert_with(|| RefOr::T(refusal(status)));
    }
}

fn refusal(status: u16) -> Response {
    let (description, schema) = match status {
        400 => ("The request breaks this contract", "Errors"),
        401 => ("No token, or one that opens nothing", "Detail"),
        403 => ("Not for this user", "Detail"),
        404 => ("There is no such thing, or it is somebody else's", "Detail"),
        405 => ("Not with this method", "Detail"),
        406 => ("`Accept` names nothing that is answered with", "Detail"),
        408 => ("The body did not arrive in time", "Detail"),
        409 => ("It conflicts with what is there", "Errors"),
        412 => ("It was changed since it was read", "Detail"),
        413 => ("The body is too large", "Detail"),
        415 => ("The body is not JSON", "Detail"),
        429 => ("Too many requests", "Detail"),
        503 => ("Something that Grid needs does not answer", "Detail"),
        _ => ("Grid failed; its log has the reason", "Detail"),
    };
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(schema))).build();
    ResponseBuilder::new().description(description).content("application/json", content).build()
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (HttpMethod, &mut Operation)> {
    [
        (HttpMethod::Get, &mut item.get),
        (HttpMethod::Post, &mut item.post),
        (HttpMethod::Put, &mut item.put),
        (HttpMethod::Patch, &mut item.patch),
        (HttpMethod::Delete, &mut item.delete),
    ]
    .into_iter()
    .filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}

fn detail() -> RefOr<Schema> {
    let text = ObjectBuilder::new().schema_type(Type::String);
    ObjectBuilder::new()
        .property("detail", text)
        .required("detail")
        .description(Some("What is wrong, in one sentence."))
        .examples([json!({"detail": "Not found."})])
        .into()
}

fn errors() -> RefOr<Schema> {
    ObjectBuilder::new()
        .description(Some(
            "What is wrong at which field, or `detail` when it is the request as a whole.",
        ))
        .examples([json!({"name": ["This field is required."]})])
        .into()
}

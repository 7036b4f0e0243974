//! Links from an answer to the calls that take what is in it: from a new service to its record, its
//! logs, its deployments, its variables.

use utoipa::openapi::{RefOr, link::Link, path::Operation};

/// What an answer leads to: an operation, and its path parameters by where they are in the answer.
type Target = (&'static str, &'static [(&'static str, &'static str)]);

const ID: &[(&str, &str)] = &[("id", "$response.body#/id")];
const SERVICE_OF_DEPLOYMENT: &[(&str, &str)] = &[("id", "$response.body#/service")];
const DEPLOYMENT: &[(&str, &str)] =
    &[("id", "$response.body#/service"), ("deployment", "$response.body#/id")];

const VARIABLE: &[(&str, &str)] = &[("id", "$request.path.id"), ("key", "$response.body#/key")];

const FROM_SERVICE: [Target; 10] = [
    ("services_retrieve", ID),
    ("services_update", ID),
    ("services_partial_update", ID),
    ("services_destroy", ID),
    ("services_logs", ID),
    ("services_rollback", ID),
    ("deployments_list", ID),
    ("deployments_create", ID),
    ("env_vars_list", ID),
    ("env_vars_create", ID),
];
const FROM_VARIABLE: [Target; 4] = [
    ("env_vars_retrieve", VARIABLE),
    ("env_vars_update", VARIABLE),
    ("env_vars_partial_update", VARIABLE),
    ("env_vars_destroy", VARIABLE),
];
const FROM_TOKEN: [Target; 2] = [("tokens_retrieve", ID), ("tokens_destroy", ID)];
const FROM_DEPLOYMENT: [Target; 2] =
    [("deployments_retrieve", DEPLOYMENT), ("services_retrieve", SERVICE_OF_DEPLOYMENT)];

/// The status of an operation's answer that leads on, and what to.
pub(super) fn of(operation: &str) -> Option<(&'static str, &'static [Target])> {
    match operation {
        "services_create" => Some(("201", &FROM_SERVICE)),
        "env_vars_create" => Some(("201", &FROM_VARIABLE)),
        "tokens_create" => Some(("201", &FROM_TOKEN)),
        "deployments_create" | "services_rollback" => Some(("201", &FROM_DEPLOYMENT)),
        _ => None,
    }
}

/// Puts them into the operation's answer.
pub(super) fn add(operation: &mut Operation, status: &str, targets: &[Target]) {
    let Some(RefOr::T(response)) = operation.responses.responses.get_mut(status) else { return };
    for (target, parameters) in targets {
        let mut link = Link::builder().operation_id(*target);
        for (name, place) in *parameters {
            link = link.parameter(*name, *place);
        }
        response.links.insert((*target).to_owned(), RefOr::T(link.build()));
    }
}

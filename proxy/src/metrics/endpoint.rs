//! `GET /metrics`, in Prometheus' own text format or in OpenMetrics', whichever the client asks for.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderMap, StatusCode, header};
use prometheus_client::{
    encoding::{prometheus_text, text},
    registry::Registry,
};

use super::Metrics;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The route, to be merged with the admin API's. It asks for no token, like `/readyz`.
pub(crate) fn router(metrics: Arc<Metrics>) -> Router {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(metrics));
    Router::new().route("/metrics", get(scrape)).with_state(Arc::new(registry))
}

async fn scrape(State(registry): State<Arc<Registry>>, headers: HeaderMap) -> Response {
    let open = wants_open_metrics(&headers);
    let mut body = String::new();
    let written = match open {
        true => text::encode(&mut body, &registry),
        false => prometheus_text::encode(&mut body, &registry),
    };
    match written {
        Ok(()) => {
            let kind = if open { OPEN_METRICS } else { PROMETHEUS };
            ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-store")], body)
                .into_response()
        }
        Err(_) => {
            tracing::error!("metrics cannot be written; this is a mistake in Grid");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Whether a client names OpenMetrics at all. Who takes anything gets the older format.
fn wants_open_metrics(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|accept| accept.to_str().ok())
        .any(|accept| accept.contains("application/openmetrics-text"))
}

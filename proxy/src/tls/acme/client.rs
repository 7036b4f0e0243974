//! HTTPS to a certificate authority: bounded in time and size, with Retry-After kept.

use std::{error::Error as StdError, path::Path, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode, header::RETRY_AFTER};
use http_body_util::{BodyExt, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client as HyperClient, connect::HttpConnector},
    rt::TokioExecutor,
};
use instant_acme::{BodyWrapper, BytesResponse, HttpClient};
use jiff::{Timestamp, fmt::rfc2822::DateTimeParser};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};
use serde_json::Value;

use super::failure::Refused;
use crate::tls::TlsError;

/// How long one request may take.
const WITHIN: Duration = Duration::from_secs(30);
/// Bytes of an answer: certificate chains are the largest.
const ANSWER_BYTES: usize = 256 * 1024;

/// Shared by all attempts.
#[derive(Clone)]
pub(crate) struct Client {
    hyper: HyperClient<HttpsConnector<HttpConnector>, BodyWrapper<Bytes>>,
}

type BoxError = Box<dyn StdError + Send + Sync>;

impl Client {
    /// Trusts the certificates of a file, or those that this machine trusts. Blocks.
    ///
    /// # Errors
    /// The file cannot be read or has no certificate, or this machine's cannot be used.
    pub(crate) fn new(ca_file: Option<&Path>) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let builder = match ca_file {
            None => HttpsConnectorBuilder::new()
                .with_provider_and_platform_verifier(provider)
                .map_err(|e| TlsError::Roots(format!("this machine's roots: {e}")))?,
            Some(file) => {
                let config = ClientConfig::builder_with_provider(provider)
                    .with_safe_default_protocol_versions()
                    .map_err(TlsError::Crypto)?
                    .with_root_certificates(roots(file)?)
                    .with_no_client_auth();
                HttpsConnectorBuilder::new().with_tls_config(config)
            }
        };
        let connector = builder.https_only().enable_http1().enable_http2().build();
        Ok(Self { hyper: HyperClient::builder(TokioExecutor::new()).build(connector) })
    }
}

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, instant_acme::Error>> + Send>> {
        let answer = self.hyper.request(request);
        let read = async move {
            let (parts, body) = answer.await?.into_parts();
            let body = Limited::new(body, ANSWER_BYTES).collect().await?.to_bytes();
            if parts.status == StatusCode::TOO_MANY_REQUESTS || parts.status.is_server_error() {
                let after = parts.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
                return Err(Box::new(Refused {
                    status: parts.status.as_u16(),
                    retry_after: after.and_then(|text| pause(text, Timestamp::now())),
                    detail: detail(&body),
                }) as BoxError);
            }
            Ok(BytesResponse { parts, body: Box::new(body) })
        };
        Box::pin(async move {
            match tokio::time::timeout(WITHIN, read).await {
                Ok(outcome) => outcome.map_err(instant_acme::Error::Other),
                Err(_) => {
                    let seconds = WITHIN.as_secs();
                    Err(instant_acme::Error::Other(format!("no answer in {seconds} s").into()))
                }
            }
        })
    }
}

fn roots(file: &Path) -> Result<RootCertStore, TlsError> {
    let refuse = |reason: String| TlsError::Roots(format!("{} {reason}", file.display()));
    let mut roots = RootCertStore::empty();
    let certificates =
        CertificateDer::pem_file_iter(file).map_err(|e| refuse(format!("cannot be read: {e}")))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|e| refuse(format!("is not PEM: {e}")))?;
        roots.add(certificate).map_err(|e| refuse(format!("has a bad certificate: {e}")))?;
    }
    if roots.is_empty() {
        return Err(refuse("has no certificate in it".to_owned()));
    }
    Ok(roots)
}

/// Retry-After: seconds or a date.
fn pause(text: &str, now: Timestamp) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    static PARSER: DateTimeParser = DateTimeParser::new();
    let date = PARSER.parse_timestamp(text.trim().replace("GMT", "+0000")).ok()?;
    Some(Duration::try_from(date.duration_since(now)).unwrap_or_default())
}

/// What a problem document says, or the beginning of what came instead.
fn detail(body: &[u8]) -> String {
    let problem = serde_json::from_slice::<Value>(body).ok();
    let text = problem.as_ref().and_then(|problem| problem["detail"].as_str());
    let text = text.map_or_else(|| String::from_utf8_lossy(body), Into::into);
    text.chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_given_in_seconds_or_as_a_date() {
        let now: Timestamp = "2026-01-01T12:00:00Z".parse().expect("a time");
        let seconds = |text| pause(text, now).map(|pause| pause.as_secs());
        assert_eq!(seconds("120"), Some(120));
        assert_eq!(seconds("Thu, 01 Jan 2026 12:00:30 GMT"), Some(30));
        assert_eq!(seconds("Thu, 01 Jan 2026 11:00:00 GMT"), Some(0));
        for bad in ["", "soon", "-1", "1.5"] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }

    #[test]
    fn roots_come_from_a_file_that_has_some() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let file = dir.path().join("ca.pem");
        let reason = |file: &Path| match roots(file) {
            Err(TlsError::Roots(reason)) => reason,
            other => panic!("{other:?}"),
        };
        assert!(reason(&file).contains("cannot be read"));
        std::fs::write(&file, "nothing\n").expect("writes");
        assert!(reason(&file).ends_with("has no certificate in it"));
        let issued = crate::tls::testing::issue(&["ca.example"], -1, 1);
        std::fs::write(&file, issued.chain).expect("writes");
        assert_eq!(roots(&file).expect("good").len(), 1);
        Client::new(Some(&file)).expect("good");
        Client::new(None).expect("this machine's roots");
    }
}

//! HTTPS: the certificates that are served and where they come from. What a request is does not
//! matter here, and where it came in does not matter to the rest.
//!
//! ```text
//! GRID_CERTS_DIR ──reload──→ ┌──────────────┐
//! ACME ──acme──────────────→ │ Certificates │ ←─resolve── handshake
//! localhost ──development──→ └──────────────┘
//! ```

mod acme;
mod certificates;
mod development;
mod domains;
mod expiry;
mod files;
mod names;
mod pair;
mod plain;
mod private;
mod redirect;
mod reload;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use control::config::Https;
use jiff::Timestamp;
use parking_lot::Mutex;
use pingora_core::{
    listeners::tls::TlsSettings, protocols::ALPN, server::ShutdownWatch,
    services::background::BackgroundService,
};

pub(crate) use self::{domains::Domains, plain::Plain};
use crate::metrics::Metrics;

use self::{
    acme::{Acme, challenges, schedule::Status},
    certificates::{Certificates, Listed},
    development::Development,
    expiry::Expiry,
    redirect::to_https,
    reload::Reader,
};

/// How often the ends of certificates are looked at.
const HOUR: Duration = Duration::from_secs(3600);

/// Why HTTPS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("cannot {operation} {}: {source}", path.display())]
    File { operation: &'static str, path: PathBuf, source: io::Error },
    #[error("making the development certificates: {0}")]
    Development(rcgen::Error),
    #[error("setting up TLS: {0}")]
    Crypto(rustls::Error),
    #[error("the certificates that ACME directories are checked by: {0}; see GRID_ACME_CA_FILE")]
    Roots(String),
}

/// Everything of HTTPS in this process.
pub(crate) struct Tls {
    certificates: Arc<Certificates>,
    /// Until it is followed.
    reader: Mutex<Option<Reader>>,
    development_dir: PathBuf,
    acme: Option<Arc<Acme>>,
}

impl Tls {
    /// Reads what there is, so that the first handshake is served. Blocks.
    ///
    /// # Errors
    /// What cannot be read or written in the data directory, or the roots for ACME. A certificate
    /// in `GRID_CERTS_DIR` that cannot be used is logged, and the others are served.
    pub(crate) fn open(config: &Https, data_dir: &Path) -> Result<Self, TlsError> {
        let now = Timestamp::now();
        let development_dir = data_dir.join("tls");
        let development = Development::open(&development_dir, now)?;
        let certificates = Arc::new(Certificates::new(development));
        let reader = config.certs_dir.as_ref().map(|dir| {
            let mut reader = Reader::new(dir.clone(), certificates.clone());
            reader.read(now);
            reader
        });
        let acme = config
            .acme_directory
            .as_ref()
            .map(|url| {
                let authority = acme::Authority {
                    directory: url.clone(),
                    email: config.acme_email.clone(),
                    ca_file: config.acme_ca_file.clone(),
                };
                Acme::open(authority, data_dir, certificates.clone(), acme::Pace::default(), now)
            })
            .transpose()?
            .map(Arc::new);
        Ok(Self { certificates, reader: Mutex::new(reader), development_dir, acme })
    }

    /// How the listener speaks TLS: 1.2 and 1.3 (Pingora's choice), HTTP/2 and HTTP/1.1, and our
    /// choice of certificate.
    ///
    /// # Errors
    /// Pingora's own.
    pub(crate) fn listener(&self) -> pingora_core::Result<TlsSettings> {
        // The paths are not looked at when there is a resolver.
        let mut settings = TlsSettings::intermediate("", "")?;
        settings.set_cert_resolver(self.certificates.clone());
        settings.set_alpn(ALPN::H2H1);
        Ok(settings)
    }

    /// What plain HTTP has to do for HTTPS at this port.
    pub(crate) fn plain(&self, config: &Https, port: u16) -> Plain {
        Plain {
            challenges: self.acme.as_ref().map(|acme| acme.challenges()),
            redirect: config.redirect.then_some(port),
        }
    }

    /// Where the edge says which domains there are, when ACME is on.
    pub(crate) fn domains(&self) -> Option<Arc<Domains>> {
        self.acme.as_ref().map(|acme| acme.domains())
    }

    /// The certificates that are served.
    fn list(&self) -> Vec<Listed> {
        self.certificates.list()
    }

    /// How ACME fares with each domain.
    fn acme_status(&self) -> Vec<Status> {
        self.acme.as_ref().map(|acme| acme.status()).unwrap_or_default()
    }

    /// Looks at the ends of certificates, and makes new development certificates.
    async fn look_after(&self) {
        let mut expiry = Expiry::default();
        for hour in 0_u32.. {
            let now = Timestamp::now();
            expiry.report(&self.certificates.list(), now);
            if hour % 24 == 23 {
                match Development::open(&self.development_dir, now) {
                    Ok(development) => self.certificates.set_development(development),
                    Err(error) => tracing::error!(
                        "{error}; the development certificates stay as they are, and this is tried \
                         again tomorrow"
                    ),
                }
            }
            tokio::time::sleep(HOUR).await;
        }
    }
}

/// Adds what metrics say of certificates.
pub(crate) fn show(tls: Arc<Tls>, metrics: &Metrics) {
    let certificates = tls.clone();
    metrics.gauge(
        "grid_certificate_expiry_timestamp_seconds",
        "When a certificate that is served ends, by its file or domain",
        "name",
        move || {
            let end = |listed: Listed| listed.validity.not_after.as_second() as f64;
            certificates.list().into_iter().map(|one| (one.name.clone(), end(one))).collect()
        },
    );
    metrics.gauge(
        "grid_acme_failures",
        "Failed attempts to get a certificate since the last success, by domain",
        "domain",
        move || {
            let failures = |status: Status| (status.domain.to_string(), f64::from(status.failures));
            tls.acme_status().into_iter().map(failures).collect()
        },
    );
}

#[async_trait]
impl BackgroundService for Tls {
    async fn start(&self, stop: ShutdownWatch) {
        let stopped = || {
            let mut stop = stop.clone();
            async move { drop(stop.wait_for(|stop| *stop).await) }
        };
        let reload = async {
            let reader = self.reader.lock().take();
            if let Some(reader) = reader {
                reload::follow(reader, reload::Pace::default(), stopped()).await;
            }
        };
        let acme = async {
            if let Some(acme) = &self.acme {
                acme.run(stopped()).await;
            }
        };
        let look_after = async {
            tokio::select! {
                () = self.look_after() => {}
                () = stopped() => {}
            }
        };
        tokio::join!(reload, acme, look_after);
    }
}

impl TlsError {
    /// For `map_err` on file operations.
    fn file(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { operation, path, source }
    }
}

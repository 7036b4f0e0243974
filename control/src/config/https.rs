//! The settings of HTTPS: where it is served, and where its certificates come from.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use clap::Args;

use super::{Config, ConfigError, absolute, rules};

/// Settings of HTTPS, checked each and together.
#[derive(Debug, Clone, Args)]
pub struct Https {
    /// Address of the functions over HTTPS, or off.
    #[arg(id = "GRID_HTTPS_ADDR", long = "https-addr", value_name = "IP:PORT")]
    #[arg(default_value = "0.0.0.0:8443", value_parser = rules::https_address)]
    pub addr: HttpsAddr,

    /// Whether GET and HEAD over HTTP are sent to HTTPS with 301, and others with 308: on or off.
    #[arg(id = "GRID_HTTPS_REDIRECT", long = "https-redirect", value_name = "on|off")]
    #[arg(default_value = "off", value_parser = rules::switch, action = clap::ArgAction::Set)]
    pub redirect: bool,

    /// Directory with certificates and their keys as PEM files, read again when they change; by
    /// default there is none.
    #[arg(id = "GRID_CERTS_DIR", long = "certs-dir", value_name = "DIR")]
    pub certs_dir: Option<PathBuf>,

    /// Certificate authority that is asked for certificates by ACME: letsencrypt,
    /// letsencrypt-staging, or the https:// URL of a directory; by default none is.
    #[arg(id = "GRID_ACME_DIRECTORY", long = "acme-directory", value_name = "URL")]
    #[arg(value_parser = rules::acme_directory)]
    pub acme_directory: Option<String>,

    /// Address to which the certificate authority may write; not every one wants one.
    #[arg(id = "GRID_ACME_EMAIL", long = "acme-email", value_name = "ADDRESS")]
    #[arg(value_parser = rules::email)]
    pub acme_email: Option<String>,

    /// "agreed" when you agree to the certificate authority's terms of service.
    #[arg(id = "GRID_ACME_TERMS", long = "acme-terms", value_name = "agreed")]
    #[arg(value_parser = rules::agreed)]
    pub acme_terms: Option<Agreed>,

    /// PEM file with the certificates to which the ACME directory's own certificate must lead; by
    /// default those that this machine trusts.
    #[arg(id = "GRID_ACME_CA_FILE", long = "acme-ca-file", value_name = "FILE")]
    pub acme_ca_file: Option<PathBuf>,
}

/// Where HTTPS is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpsAddr {
    /// Nowhere.
    Off,
    /// Here.
    On(SocketAddr),
}

/// The operator agrees to terms of service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreed;

impl HttpsAddr {
    /// The address, when there is one.
    pub fn get(self) -> Option<SocketAddr> {
        match self {
            Self::Off => None,
            Self::On(addr) => Some(addr),
        }
    }
}

impl Https {
    /// Makes paths absolute.
    pub(super) fn complete(&mut self, cwd: &Path) {
        for path in [&mut self.certs_dir, &mut self.acme_ca_file].into_iter().flatten() {
            *path = absolute(cwd, path);
        }
    }
}

/// Rules that take more than one setting, or the file system.
pub(super) fn check(config: &Config) -> Result<(), ConfigError> {
    let refuse = |line: String| Err(ConfigError(line));
    let https = &config.https;
    let asked = [
        ("GRID_CERTS_DIR", https.certs_dir.is_some()),
        ("GRID_ACME_DIRECTORY", https.acme_directory.is_some()),
        ("GRID_HTTPS_REDIRECT", https.redirect),
    ];
    match https.addr {
        HttpsAddr::Off => {
            if let Some((name, _)) = asked.iter().find(|(_, asked)| *asked) {
                return refuse(format!(
                    "GRID_HTTPS_ADDR is \"off\", but {name} asks for HTTPS: give GRID_HTTPS_ADDR \
                     an address, or take {name} away"
                ));
            }
        }
        HttpsAddr::On(addr) => {
            for (name, other) in
                [("GRID_HTTP_ADDR", config.http_addr), ("GRID_ADMIN_ADDR", config.admin_addr)]
            {
                if super::clash(addr, other) {
                    return refuse(format!(
                        "GRID_HTTPS_ADDR ({addr}) and {name} ({other}) need the same port: give \
                         one of them another"
                    ));
                }
            }
        }
    }
    if let Some(dir) = &https.certs_dir
        && !dir.is_dir()
    {
        let dir = dir.display();
        return refuse(format!("GRID_CERTS_DIR is \"{dir}\": is not a directory"));
    }
    if let Some(file) = &https.acme_ca_file
        && !file.is_file()
    {
        let file = file.display();
        return refuse(format!("GRID_ACME_CA_FILE is \"{file}\": is not a file"));
    }
    match (&https.acme_directory, https.acme_terms) {
        (Some(_), Some(Agreed)) => Ok(()),
        (Some(url), None) => refuse(format!(
            "GRID_ACME_DIRECTORY is \"{url}\", but GRID_ACME_TERMS is not set: read the terms of \
             service of that certificate authority, and set GRID_ACME_TERMS to \"agreed\""
        )),
        (None, terms) => {
            let given = [
                ("GRID_ACME_EMAIL", https.acme_email.is_some()),
                ("GRID_ACME_TERMS", terms.is_some()),
                ("GRID_ACME_CA_FILE", https.acme_ca_file.is_some()),
            ];
            match given.iter().find(|(_, given)| *given) {
                Some((name, _)) => refuse(format!(
                    "{name} is set, but GRID_ACME_DIRECTORY is not: name the certificate \
                     authority, such as \"letsencrypt\", or take {name} away"
                )),
                None => Ok(()),
            }
        }
    }
}

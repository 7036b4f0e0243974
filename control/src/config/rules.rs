//! What single settings may be. Each rule's text follows `NAME is "value": `.

use std::{
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    time::Duration,
};

use ipnet::IpNet;

use super::{AccessLog, Agreed, HttpsAddr, LogFormat, Role};
use crate::{api::DEFAULT_OCI_RUNTIME, firewall::Enforcement, limits};

/// A parser as clap takes it.
pub(super) trait Rule<T>:
    Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static
{
}
impl<T, F: Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static> Rule<T> for F {}

pub(super) fn count(range: RangeInclusive<usize>) -> impl Rule<usize> {
    move |text: &str| {
        let number = text.parse().ok().filter(|number| range.contains(number));
        let (least, most) = (range.start(), range.end());
        number.ok_or_else(|| format!("must be a whole number from {least} to {most}"))
    }
}

pub(super) fn seconds(range: RangeInclusive<u64>) -> impl Rule<Duration> {
    move |text: &str| {
        let number = text.parse().ok().filter(|number| range.contains(number));
        let (least, most) = (range.start(), range.end());
        number
            .map(Duration::from_secs)
            .ok_or_else(|| format!("must be a whole number of seconds from {least} to {most}"))
    }
}

/// A bound that can be off, which is 0.
pub(super) fn rate(text: &str) -> Result<u32, String> {
    let most = *limits::RATE.end();
    let number = text.parse().ok().filter(|number| *number <= most);
    let number = if text == "off" { Some(0) } else { number };
    number.ok_or_else(|| format!("must be a whole number up to {most}, or off"))
}

pub(super) fn burst(text: &str) -> Result<u32, String> {
    let most = *limits::RATE.end();
    let number = text.parse().ok().filter(|number| (1..=most).contains(number));
    number.ok_or_else(|| format!("must be a whole number from 1 to {most}"))
}

pub(super) fn prefix(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let fits = (1..=64).contains(&text.len()) && text.chars().all(plain);
    let rule = "must be 1 to 64 characters of a-z, A-Z, 0-9, dot, hyphen and underscore";
    fits.then(|| text.to_owned()).ok_or_else(|| rule.to_owned())
}

pub(super) fn switch(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("must be on or off".to_owned()),
    }
}

/// A network, or an address, which is a network of one.
pub(super) fn network(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    let network = text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    let network = network.filter(|network: &IpNet| network.trunc() == *network);
    network.ok_or_else(|| {
        "must be networks or addresses, with commas between them, such as \
         10.0.0.0/8,192.0.2.1,2001:db8::/32"
            .to_owned()
    })
}

pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "must be IP:PORT, such as 127.0.0.1:8000 or [::]:8080".to_owned())
}

pub(super) fn https_address(text: &str) -> Result<HttpsAddr, String> {
    if text == "off" {
        return Ok(HttpsAddr::Off);
    }
    let rule = "must be IP:PORT, such as 0.0.0.0:443 or [::]:443, or off";
    text.parse().map(HttpsAddr::On).map_err(|_| rule.to_owned())
}

/// The URL of an ACME directory; two have a short name.
pub(super) fn acme_directory(text: &str) -> Result<String, String> {
    let url = match text {
        "letsencrypt" => "https://acme-v02.api.letsencrypt.org/directory",
        "letsencrypt-staging" => "https://acme-staging-v02.api.letsencrypt.org/directory",
        url => url,
    };
    let host = url.strip_prefix("https://").and_then(|rest| rest.split('/').next());
    let good = host.is_some_and(|host| !host.is_empty() && !host.contains('@'))
        && url.chars().all(|c| c.is_ascii_graphic());
    let rule = "must be letsencrypt, letsencrypt-staging or the https:// URL of an ACME directory";
    good.then(|| url.to_owned()).ok_or_else(|| rule.to_owned())
}

pub(super) fn email(text: &str) -> Result<String, String> {
    let good = text
        .split_once('@')
        .is_some_and(|(name, host)| !name.is_empty() && !host.is_empty() && !host.contains('@'))
        && text.chars().all(|c| c.is_ascii_graphic() && !",?&".contains(c));
    let rule = "must be one e-mail address, such as ops@example.com";
    good.then(|| text.to_owned()).ok_or_else(|| rule.to_owned())
}

pub(super) fn agreed(text: &str) -> Result<Agreed, String> {
    let rule = "must be agreed, once you have read and accept the terms of service";
    (text == "agreed").then_some(Agreed).ok_or_else(|| rule.to_owned())
}

pub(super) fn docker_host(text: &str) -> Result<String, String> {
    let good = match text.split_once("://") {
        Some(("unix", path)) => path.starts_with('/'),
        Some(("tcp" | "http", host)) => !host.is_empty(),
        _ => false,
    };
    let rule = "must be unix:///path/of/docker.sock, tcp://host:port or http://host:port";
    good.then(|| text.to_owned()).ok_or_else(|| rule.to_owned())
}

pub(super) fn role(text: &str) -> Result<Role, String> {
    match text {
        "all" => Ok(Role::All),
        "edge" => Ok(Role::Edge),
        "control" => Ok(Role::Control),
        _ => Err("must be all, edge or control".to_owned()),
    }
}

pub(super) fn enforcement(text: &str) -> Result<Enforcement, String> {
    match text {
        "firewall" => Ok(Enforcement::Firewall),
        "guard-only" => Ok(Enforcement::GuardOnly),
        _ => Err("must be firewall or guard-only".to_owned()),
    }
}

/// A DNS server; its port may be left out.
pub(super) fn dns_server(text: &str) -> Result<SocketAddr, String> {
    let text = text.trim();
    let by_address = || text.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, 53));
    text.parse().ok().or_else(by_address).ok_or_else(|| {
        "must be IP or IP:PORT of DNS servers, with commas between them, such as 9.9.9.9,1.1.1.1"
            .to_owned()
    })
}

pub(super) fn oci_runtime(text: &str) -> Result<String, String> {
    let text = text.trim();
    let good = !text.is_empty()
        && text != DEFAULT_OCI_RUNTIME
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    good.then(|| text.to_owned()).ok_or_else(|| {
        "must be names of Docker's runtimes, with commas between them, such as runsc,runc"
            .to_owned()
    })
}

pub(super) fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("must be text or json".to_owned()),
    }
}

pub(super) fn access_log(text: &str) -> Result<AccessLog, String> {
    match text {
        "off" => Ok(AccessLog::Off),
        "text" => Ok(AccessLog::Text),
        "json" => Ok(AccessLog::Json),
        _ => Err("must be off, text or json".to_owned()),
    }
}

/// A share of all, from none to each.
pub(super) fn share(text: &str) -> Result<f64, String> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let number = text.parse().ok().filter(|share| plain && (0.0..=1.0).contains(share));
    number.ok_or_else(|| "must be a number from 0.0 to 1.0, such as 0.1 for a tenth".to_owned())
}

/// `http://host:port`, or with a path instead of the usual one.
pub(super) fn otlp_endpoint(text: &str) -> Result<String, String> {
    let rule = "must be http://HOST:PORT of a collector that takes OTLP over HTTP, such as \
                http://127.0.0.1:4318 (without TLS: let a collector beside Grid send it on)";
    let uri: http::Uri = text.parse().map_err(|_| rule.to_owned())?;
    let named =
        uri.authority().is_some_and(|to| !to.as_str().contains('@') && !to.host().is_empty());
    let good = uri.scheme_str() == Some("http") && named && uri.query().is_none();
    good.then(|| text.to_owned()).ok_or_else(|| rule.to_owned())
}

/// The simple part of what tracing's filters can be; it takes each of these.
pub(super) fn log_filter(text: &str) -> Result<String, String> {
    let level = |text: &str| {
        let levels = ["off", "error", "warn", "info", "debug", "trace"];
        levels.iter().any(|level| level.eq_ignore_ascii_case(text))
    };
    let part = |text: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "_:-".contains(c))
    };
    let good = |directive: &str| match directive.split_once('=') {
        Some((target, text)) => part(target) && level(text),
        None => level(directive),
    };
    let rule = "must be levels (off, error, warn, info, debug, trace) or part=level, with commas \
                between them, such as info,control=debug";
    text.split(',').all(good).then(|| text.to_owned()).ok_or_else(|| rule.to_owned())
}

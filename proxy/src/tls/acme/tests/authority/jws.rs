//! Requests as clients sign them (RFC 7515, ES256).

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// A public key.
#[derive(Clone)]
pub(super) struct Key {
    x: String,
    y: String,
}

/// A request's parts; the signature is not verified yet.
pub(super) struct Signed {
    pub(super) nonce: String,
    /// The account's URL, or None when the key itself is there.
    pub(super) kid: Option<String>,
    pub(super) key: Option<Key>,
    pub(super) payload: Value,
    signed: String,
    signature: Vec<u8>,
}

impl Signed {
    /// Reads a request that must be for this URL.
    pub(super) fn parse(body: &[u8], url: &str) -> Result<Self, String> {
        let body: Value = serde_json::from_slice(body).map_err(|e| e.to_string())?;
        let text = |value: &Value| value.as_str().map(str::to_owned).ok_or("a text is missing");
        let (protected, payload) = (text(&body["protected"])?, text(&body["payload"])?);
        let header: Value =
            serde_json::from_slice(&decode(&protected)?).map_err(|e| e.to_string())?;
        if header["alg"] != "ES256" || header["url"] != url {
            return Err(format!("not ES256, or not for {url}: {header}"));
        }
        let jwk = &header["jwk"];
        let key = (!jwk.is_null())
            .then(|| Ok::<_, &str>(Key { x: text(&jwk["x"])?, y: text(&jwk["y"])? }));
        let key = key.transpose()?;
        let kid = header["kid"].as_str().map(str::to_owned);
        if key.is_some() == kid.is_some() {
            return Err("needs jwk or kid, not both".to_owned());
        }
        let bytes = decode(&payload)?;
        let content = match bytes.is_empty() {
            true => Value::Null, // POST as GET
            false => serde_json::from_slice(&bytes).map_err(|e| e.to_string())?,
        };
        Ok(Self {
            nonce: text(&header["nonce"])?,
            kid,
            key,
            payload: content,
            signed: format!("{protected}.{payload}"),
            signature: decode(&text(&body["signature"])?)?,
        })
    }

    pub(super) fn verify(&self, key: &Key) -> Result<(), String> {
        let point = [vec![4], decode(&key.x)?, decode(&key.y)?].concat();
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
            .verify(self.signed.as_bytes(), &self.signature)
            .map_err(|_| "the signature is wrong".to_owned())
    }
}

impl Key {
    /// RFC 7638.
    pub(super) fn thumbprint(&self) -> String {
        let Self { x, y } = self;
        let text = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(text))
    }
}

pub(super) fn decode(text: &str) -> Result<Vec<u8>, String> {
    BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|e| e.to_string())
}

//! Numbered pages: `{"count": 21, "next": "…?page=2", "previous": null, "results": […]}`.

use axum::{Json, extract::FromRequestParts};
use http::{Uri, header, request::Parts, uri::Scheme};
use serde::Serialize;
use utoipa::ToSchema;

use super::{error::ApiError, fields::Fields, parameters::query_parameter};

/// Entries of a page when the client asks for no other number.
const SIZE: usize = 20;
/// Entries of a page at most.
const MAX_SIZE: usize = 100;
/// The greatest number that the contract takes for one.
const MOST: u32 = i32::MAX.unsigned_abs();

/// Which page is asked for: `?page=2&page_size=50`.
#[derive(Debug)]
pub(super) struct PageRequest {
    number: usize,
    size: usize,
    /// `http://127.0.0.1:8000/api/v1/services/`
    address: String,
    /// The raw query without `page`.
    query: Vec<String>,
}

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Page)]
pub(super) struct PageBody<T> {
    count: u64,
    next: Option<String>,
    previous: Option<String>,
    results: Vec<T>,
}

impl<S: Send + Sync> FromRequestParts<S> for PageRequest {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let host = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
        // Put there by who knows of proxies before the API.
        let scheme = parts.extensions.get().unwrap_or(&Scheme::HTTP);
        Self::of(&parts.uri, scheme, host)
    }
}

impl PageRequest {
    fn of(uri: &Uri, scheme: &Scheme, host: Option<&str>) -> Result<Self, ApiError> {
        let number = match query_parameter(uri, "page") {
            None => 1,
            Some(text) => match text.parse() {
                Ok(number) if number >= 1 => number,
                _ => return Err(ApiError::InvalidPage),
            },
        };
        let mut fields = Fields::of_query(uri, &["page_size"]);
        let size = fields.integer("page_size", 1..=MOST);
        fields.finish(&[]).map_err(ApiError::Fields)?;
        let size = size.and_then(|size| usize::try_from(size).ok());
        let size = size.map_or(SIZE, |size| size.min(MAX_SIZE));
        let path = uri.path();
        Ok(Self {
            number,
            size,
            // Without a Host header (HTTP/1.0) the links are relative.
            address: host.map_or(path.to_owned(), |host| format!("{scheme}://{host}{path}")),
            query: uri
                .query()
                .unwrap_or_default()
                .split('&')
                .filter(|pair| !pair.is_empty() && pair.split('=').next() != Some("page"))
                .map(str::to_owned)
                .collect(),
        })
    }

    /// Entries before this page.
    pub(super) fn offset(&self) -> usize {
        (self.number - 1).saturating_mul(self.size)
    }

    /// Entries of this page at most.
    pub(super) fn limit(&self) -> usize {
        self.size
    }

    /// Fails with 404 when the page is behind the last one of `count` entries.
    pub(super) fn check(&self, count: u64) -> Result<(), ApiError> {
        let beyond = u64::try_from(self.offset()).map_or(true, |offset| offset >= count);
        if self.number > 1 && beyond { Err(ApiError::InvalidPage) } else { Ok(()) }
    }

    /// The page's body, with links to its neighbours.
    pub(super) fn body<T>(&self, count: u64, results: Vec<T>) -> Json<PageBody<T>> {
        let end = u64::try_from(self.offset().saturating_add(self.size)).unwrap_or(u64::MAX);
        Json(PageBody {
            count,
            next: (end < count).then(|| self.link(self.number + 1)),
            previous: (self.number > 1).then(|| self.link(self.number - 1)),
            results,
        })
    }

    fn link(&self, number: usize) -> String {
        let page = (number > 1).then(|| format!("page={number}"));
        let query: Vec<&str> = self.query.iter().chain(&page).map(String::as_str).collect();
        match query.join("&") {
            empty if empty.is_empty() => self.address.clone(),
            query => format!("{}?{query}", self.address),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(uri: &'static str) -> Result<PageRequest, ApiError> {
        PageRequest::of(&Uri::from_static(uri), &Scheme::HTTP, Some("h:8000"))
    }

    #[test]
    fn numbers_and_sizes() {
        let cases = [
            ("/a/", 0, 20),
            ("/a/?page=3", 40, 20),
            ("/a/?page=2&page_size=7", 7, 7),
            ("/a/?page_size=101", 0, 100),
            ("/a/?page_size=2147483647", 0, 100),
            ("/a/?page_size=", 0, 20),
        ];
        for (uri, offset, limit) in cases {
            let page = page(uri).expect("valid");
            assert_eq!((page.offset(), page.limit()), (offset, limit), "{uri}");
        }
        for uri in ["/a/?page_size=0", "/a/?page_size=x", "/a/?page_size=-1"] {
            assert!(matches!(page(uri), Err(ApiError::Fields(_))), "{uri}");
        }
        for uri in ["/a/?page=0", "/a/?page=-1", "/a/?page=x", "/a/?page="] {
            assert_eq!(page(uri).err(), Some(ApiError::InvalidPage), "{uri}");
        }
    }

    #[test]
    fn links_keep_the_rest_of_the_query() {
        let Json(body) = page("/a/?page=2&page_size=2&q=%20x").expect("valid").body(5, vec![3, 4]);
        assert_eq!(body.next.as_deref(), Some("http://h:8000/a/?page_size=2&q=%20x&page=3"));
        assert_eq!(body.previous.as_deref(), Some("http://h:8000/a/?page_size=2&q=%20x"));
        let Json(last) = page("/a/?page=2").expect("valid").body(40, vec![0]);
        assert_eq!((last.next, last.previous.as_deref()), (None, Some("http://h:8000/a/")));
        let behind = PageRequest::of(&Uri::from_static("/a/"), &Scheme::HTTPS, Some("h"));
        let Json(first) = behind.expect("valid").body(40, vec![0]);
        assert_eq!(first.next.as_deref(), Some("https://h/a/?page=2"));
    }

    #[test]
    fn pages_behind_the_last_one_do_not_exist() {
        let check = |uri, count| page(uri).expect("valid").check(count);
        assert_eq!(check("/a/", 0), Ok(()));
        assert_eq!(check("/a/?page=2", 21), Ok(()));
        assert_eq!(check("/a/?page=2", 20), Err(ApiError::InvalidPage));
        assert_eq!(check("/a/?page=18446744073709551615", 9), Err(ApiError::InvalidPage));
    }
}

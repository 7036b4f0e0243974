//! Which services a list is asked for: `?name=&deploy_type=&status=&ordering=`.

use http::Uri;

use super::{auth::Caller, error::ApiError, parameters::given_parameter};
use crate::{
    service::Status,
    store::{Order, ServiceQuery},
};

/// The query that a request makes.
///
/// # Errors
/// At `deploy_type`, `status` and `ordering`, for a value that there is not.
pub(super) fn query(caller: &Caller, uri: &Uri) -> Result<ServiceQuery, ApiError> {
    let given = |name| given_parameter(uri, name);
    let choice = |name: &str, value: &str| {
        let message =
            format!("Select a valid choice. {value} is not one of the available choices.");
        ApiError::field(name, message)
    };
    if let Some(deploy_type) = given("deploy_type")
        && deploy_type != "FUNCTION"
    {
        return Err(choice("deploy_type", &deploy_type));
    }
    let status = match given("status") {
        None => None,
        Some(text) => {
            let found = Status::ALL.into_iter().find(|status| status.as_str() == text);
            Some(found.ok_or_else(|| choice("status", &text))?)
        }
    };
    let mut ordering = Vec::new();
    for key in given("ordering").iter().flat_map(|keys| keys.split(',')) {
        let order = key.trim().parse::<Order>().map_err(|()| choice("ordering", key))?;
        ordering.push(order);
    }
    Ok(ServiceQuery { owner: caller.owner.clone(), name: given("name"), status, ordering })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{name::UserName, store::OrderKey};

    fn ask(uri: &'static str) -> Result<ServiceQuery, ApiError> {
        query(&Caller::named("alice"), &Uri::from_static(uri))
    }

    #[test]
    fn parameters_that_are_empty_or_unknown_ask_for_nothing() {
        let everything = ask("/").expect("valid");
        assert_eq!(everything.owner.as_ref().map(UserName::as_str), Some("alice"));
        assert_eq!(ask("/?name=&status=&ordering=&deploy_type=FUNCTION&page=2"), Ok(everything));
    }

    #[test]
    fn each_parameter_is_read() {
        let query = ask("/?name=a%20b&status=failing&ordering=name,%20-updated_at");
        let query = query.expect("valid");
        assert_eq!((query.name.as_deref(), query.status), (Some("a b"), Some(Status::Failing)));
        let keys: Vec<_> = query.ordering.iter().map(|key| (key.by, key.descending)).collect();
        assert_eq!(keys, [(OrderKey::Name, false), (OrderKey::UpdatedAt, true)]);
    }

    #[test]
    fn a_value_that_there_is_not_is_named() {
        for (field, value) in
            [("deploy_type", "GIT"), ("status", "Live"), ("ordering", "id"), ("ordering", "--name")]
        {
            let uri: &'static str = format!("/?{field}={value}").leak();
            let message =
                format!("Select a valid choice. {value} is not one of the available choices.");
            assert_eq!(ask(uri), Err(ApiError::field(field, message)));
        }
    }
}

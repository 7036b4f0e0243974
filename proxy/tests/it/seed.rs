//! The examples of the document that the product was described in, as they stand there.

use crate::{
    grid::{Grid, wait_until},
    http::{Answer, Connection},
};

const CREATE: &str = r#"{
    "name": "hello",
    "deploy_type": "FUNCTION",
    "function_runtime": "node18",
    "function_code": "module.exports.handler = async (event) => ({ statusCode: 200, body: \"hello, \" + (event.queryStringParameters?.name || \"world\") });",
    "public_domain": "hello.example.com"
  }"#;
const UPDATE: &str = r#"{"function_code": "module.exports.handler = async () => ({ statusCode: 200, body: \"v2\" });"}"#;

#[test]
fn create_call_and_update_as_the_document_shows() {
    let grid = Grid::start();
    let call = |method: &str, target: &str| -> Answer {
        let headers = [("host", "hello.example.com")];
        Connection::open(grid.public).request(method, target, &headers, b"")
    };
    assert_eq!(call("GET", "/fn/hello").status, 404);

    let answer = grid.api_raw("POST", "/api/v1/services/", CREATE.as_bytes());
    assert_eq!(answer.status, 201, "{}", answer.text());
    let record = answer.json();
    let id = record["id"].as_str().expect("an id");
    assert_eq!(answer.header("location"), Some(format!("/api/v1/services/{id}/").as_str()));
    assert_eq!(record["function_handler"], "handler");
    assert_eq!(record["function_name"], "hello");
    let first = grid.settled(id, record["deployment"]["id"].as_str().expect("a deployment"));
    assert_eq!(first["phase"], "live", "{first}");
    let phases: Vec<_> = first["phases"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|entry| entry["phase"].as_str().expect("a phase"))
        .collect();
    assert_eq!(phases, ["queued", "building", "deploying", "health_checking", "live"]);
    assert!(first["log"].as_array().is_some_and(|lines| !lines.is_empty()), "{first}");

    assert_eq!(call("POST", "/fn/hello").text(), "hello, world");
    assert_eq!(call("GET", "/fn/hello?name=alice").text(), "hello, alice");

    let path = format!("/api/v1/services/{id}/");
    let answer = grid.api_raw("PATCH", &path, UPDATE.as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
    let second = answer.json()["deployment"]["id"].as_str().expect("a deployment").to_owned();
    assert_eq!(grid.settled(id, &second)["phase"], "live");
    wait_until("the new code", || call("GET", "/fn/hello").text() == "v2");
    assert_eq!(grid.api("GET", &path, None).json()["live_deployment"], second.as_str());
    let list = grid.api("GET", &format!("{path}deployments/"), None).json();
    assert_eq!(list["count"], 2);
    assert_eq!(list["results"][1]["phase"], "superseded");
}

//! Who deployed what and why, what each deployment changed, and going back.

use control::{
    name::{DeploymentId, ServiceId},
    store::Durable as _,
};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::client::Grid;

/// A service and its deployments, oldest first, all of which were live but the last.
struct History {
    path: String,
    id: ServiceId,
    deployments: Vec<DeploymentId>,
}

impl History {
    async fn make(grid: &Grid, codes: &[&str]) -> Self {
        let path = grid.service("a").await;
        let record = grid.get(&path).await.json();
        let id = record["id"].as_str().and_then(|id| id.parse().ok()).expect("an id");
        let mut history = Self { path, id, deployments: vec![deployment(&record)] };
        for code in codes {
            history.go_live(grid).await;
            let change =
                json!({"function_code": code, "memory_mb": 128 + history.deployments.len()});
            let record = grid.patch(&history.path, &change).await.json();
            history.deployments.push(deployment(&record));
        }
        history
    }

    async fn go_live(&self, grid: &Grid) {
        let newest = *self.deployments.last().expect("one");
        let activated = grid.store.activate_deployment(self.id, newest, Timestamp::now());
        activated.await.expect("activates");
    }

    async fn rollback(&self, grid: &Grid, body: &Value) -> super::client::Answer {
        grid.post(&format!("{}rollback/", self.path), body).await
    }

    async fn deployment(&self, grid: &Grid, id: DeploymentId) -> Value {
        grid.get(&format!("{}deployments/{id}/", self.path)).await.json()
    }
}

fn deployment(record: &Value) -> DeploymentId {
    let id = record["latest_deployment"].as_str().expect("an id");
    id.parse().expect("an id")
}

#[tokio::test]
async fn each_deployment_says_who_why_and_what_changed() {
    let grid = Grid::start().await;
    let history = History::make(&grid, &["y"]).await;
    let first = history.deployment(&grid, history.deployments[0]).await;
    assert_eq!((&first["created_by"], &first["reason"]), (&json!("admin"), &json!("created")));
    assert_eq!(first["changes"]["compared_to"], json!(null));
    let second = history.deployment(&grid, history.deployments[1]).await;
    assert_eq!(second["reason"], "changed");
    assert_eq!(
        second["changes"],
        json!({
            "compared_to": history.deployments[0],
            "fields": {"memory_mb": {"before": 128, "after": 129}},
            "function_code": "--- before\n+++ after\n@@ -1 +1 @@\n-x\n\\ No newline at end of file\n+y\n\\ No newline at end of file\n",
            "env_vars": {"added": [], "removed": [], "changed": []},
        })
    );
    let again = grid.post(&format!("{}deployments/", history.path), &json!({})).await;
    assert_eq!((again.status, &again.json()["reason"]), (201, &json!("redeployed")));
}

#[tokio::test]
async fn a_rollback_takes_up_an_earlier_deployment_in_its_image() {
    let grid = Grid::start().await;
    let history = History::make(&grid, &["y", "z"]).await;
    history.go_live(&grid).await;
    let (first, second) = (history.deployments[0], history.deployments[1]);

    let answer = history.rollback(&grid, &json!({ "deployment": first })).await;
    let made = answer.json();
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(
        answer.headers["location"],
        format!("{}deployments/{}/", history.path, made["id"].as_str().expect("an id"))
    );
    assert_eq!((&made["reason"], &made["image"]), (&json!("rolled_back"), &json!(first)));
    assert_eq!(made["rolled_back_to"], json!(first));
    let record = grid.get(&history.path).await.json();
    assert_eq!((&record["function_code"], &record["memory_mb"]), (&json!("x"), &json!(128)));
    assert_eq!(record["latest_deployment"], made["id"]);

    // Without a name: what was live before the live one, which is still the third.
    let made = history.rollback(&grid, &json!({})).await.json();
    assert_eq!(made["rolled_back_to"], json!(second));
    // Going back to what went back ends in the same image.
    let id: DeploymentId = made["id"].as_str().expect("an id").parse().expect("an id");
    grid.store.activate_deployment(history.id, id, Timestamp::now()).await.expect("activates");
    let made = history.rollback(&grid, &json!({ "deployment": id })).await.json();
    assert_eq!((&made["rolled_back_to"], &made["image"]), (&json!(id), &json!(second)));
}

#[tokio::test]
async fn what_cannot_be_gone_back_to_is_refused_at_its_field() {
    let grid = Grid::start().await;
    let history = History::make(&grid, &[]).await;
    let missing = "There is no such deployment, or it is not kept any more.";
    history.rollback(&grid, &json!({})).await.is(409, &json!({"deployment": [missing]}));
    let nobody = json!({"deployment": DeploymentId::new()});
    history.rollback(&grid, &nobody).await.is(409, &json!({"deployment": [missing]}));
    let queued = json!({"deployment": history.deployments[0]});
    let never = json!({"deployment": ["It never was live."]});
    history.rollback(&grid, &queued).await.is(409, &never);
    let garbage = json!({"deployment": "latest"});
    let invalid = json!({"deployment": ["Must be a valid UUID."]});
    history.rollback(&grid, &garbage).await.is(400, &invalid);
    let record = grid.get(&history.path).await.json();
    assert_eq!(deployment(&record), history.deployments[0]);
}

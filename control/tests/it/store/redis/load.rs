//! What holds while many call at once.

use control::{
    service::Phase,
    store::{Durable, ServiceQuery},
};

use crate::{
    redis::Server,
    store::{at, line, service},
};

#[tokio::test]
async fn long_lists_come_to_their_end_while_others_write() {
    let (server, dir) = (Server::start(), tempfile::tempdir().expect("temporary directory"));
    let store = server.store(dir.path()).await;
    let mut last = None;
    for number in 0..60 {
        let (service, first) = service(&format!("s{number}"));
        store.create_service(&service, &first, None).await.expect("creates");
        last = Some((service.id, first.id));
    }
    let (id, deployment) = last.expect("there are some");
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                loop {
                    let lines = vec![line("said")];
                    let said =
                        store.record_phase(id, deployment, Phase::Building, at(3), lines, None);
                    said.await.expect("records");
                }
            })
        })
        .collect();
    for _ in 0..3 {
        let listed = store.services(&ServiceQuery::all(), 0, 60).await.expect("lists");
        assert_eq!((listed.count, listed.items.len()), (60, 60));
    }
    for writer in writers {
        assert!(!writer.is_finished(), "it wrote all the time");
        writer.abort();
    }
}

#[tokio::test]
async fn a_page_behind_the_last_is_empty() {
    let (server, dir) = (Server::start(), tempfile::tempdir().expect("temporary directory"));
    let store = server.store(dir.path()).await;
    let (a, first) = service("a");
    store.create_service(&a, &first, None).await.expect("creates");
    let page = store.deployments(a.id, usize::MAX, 10).await.expect("lists");
    assert_eq!((page.count, page.items.len()), (1, 0));
    assert!(
        store.services(&ServiceQuery::all(), usize::MAX, 10).await.expect("lists").items.is_empty()
    );
}

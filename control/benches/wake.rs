//! What a wake costs in the store: from the edge's call for a replica until the edge has read that there
//! is one, through the embedded store and through a Redis on a Unix socket. A whole wake is a hundred
//! times as long and varies by tens of milliseconds, so a difference of one cannot be seen in it.
//! `cargo bench -p control` prints both.

#![expect(missing_docs, reason = "what criterion's macros make has none")]

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use control::{
    name::{FunctionName, HandlerName, PublicDomain, ReplicaId, ServiceId, ServiceName, UserName},
    service::{
        Cause, Deployment, Egress, EventFormat, FunctionSpec, Origin, Replica, Service, Wish,
    },
    store::{
        Change, Store,
        embedded::Embedded,
        redis::{Part, Redis, RedisSettings},
    },
};
use criterion::{Criterion, criterion_group, criterion_main};
use jiff::Timestamp;
use tokio::{runtime::Runtime, sync::broadcast::Receiver};

/// The two sides of a Grid, and a service that sleeps.
struct Grid {
    edge: Arc<dyn Store>,
    control: Arc<dyn Store>,
    service: ServiceId,
}

impl Grid {
    async fn new(edge: Arc<dyn Store>, control: Arc<dyn Store>) -> Self {
        let (service, first) = sleeper();
        control.create_service(&service, &first, None).await.expect("creates");
        let now = Timestamp::now();
        control.activate_deployment(service.id, first.id, now).await.expect("activates");
        Self { edge, control, service: service.id }
    }

    /// What both sides do one after the other until the edge listens for the new replica. The
    /// container starts meanwhile, and what they do later is done while a request runs.
    async fn wake(&self) -> Duration {
        let id = ReplicaId::random();
        let (mut to_control, mut to_edge) = (self.control.watch(), self.edge.watch());
        let began = Instant::now();
        self.edge.request_capacity(self.service, 1).await.expect("requests");
        self.hint(&mut to_control).await;
        let service = self.control.service(self.service).await.expect("reads").expect("is there");
        let live = service.live_deployment.expect("one is live");
        let view = self.control.view(self.service).await.expect("reads");
        assert_eq!((view.demand, view.replicas.len()), (1, 0));
        let deployment = self.control.deployment(self.service, live).await.expect("reads");
        let replica = Replica {
            id: id.clone(),
            service: self.service,
            deployment: deployment.expect("is there").id,
            wish: Wish::Serve,
            seen: None,
        };
        self.control.put_replica(replica).await.expect("puts");
        while self.edge.view(self.service).await.expect("reads").replicas.is_empty() {
            self.hint(&mut to_edge).await;
        }
        let took = began.elapsed();
        self.control.remove_replica(self.service, &id).await.expect("removes");
        self.edge.request_capacity(self.service, 0).await.expect("requests");
        took
    }

    async fn hint(&self, hints: &mut Receiver<Change>) {
        while !hints.recv().await.expect("a hint").may_concern(self.service) {}
    }
}

fn sleeper() -> (Service, Deployment) {
    let (id, now) = (ServiceId::new(), Timestamp::now());
    let function = FunctionSpec {
        runtime: "node18".to_owned(),
        handler: HandlerName::parse("handler").expect("valid"),
        code: "exports.handler = async () => 'awake';".to_owned(),
        event_format: EventFormat::Grid,
        memory_mb: 128,
        cpu_shares: 1024,
        egress: Egress::None,
        oci_runtime: None,
        env_vars: Vec::new(),
    };
    let origin = Origin { by: UserName::operator(), cause: Cause::Created };
    let first = Deployment::queued(id, function.clone(), origin, now);
    let service = Service {
        id,
        owner: UserName::operator(),
        name: ServiceName::parse("sleeper").expect("valid"),
        function_name: FunctionName::parse("sleeper").expect("valid"),
        public_domain: PublicDomain::parse("sleeper.localhost").expect("valid"),
        function,
        min_replicas: 0,
        max_replicas: 1,
        rate_limit: None,
        rate_burst: None,
        live_deployment: None,
        latest_deployment: first.id,
        version: 1,
        created_at: now,
        updated_at: now,
    };
    (service, first)
}

fn wakes(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let dir = tempfile::tempdir().expect("a directory");
    let mut group = criterion.benchmark_group("wake");
    let mut run = |name: &str, grid: &Grid| {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|times| {
                runtime.block_on(async {
                    let mut took = Duration::ZERO;
                    for _ in 0..times {
                        took += grid.wake().await;
                    }
                    took
                })
            });
        });
    };

    let store: Arc<dyn Store> = Arc::new(Embedded::open(dir.path()).expect("opens"));
    run("embedded", &runtime.block_on(Grid::new(store.clone(), store)));

    let socket = dir.path().join("redis.sock");
    let _redis = Server::start(&socket);
    let url = format!("unix://{}", socket.display()).parse().expect("a URL");
    let settings = RedisSettings { url, prefix: "grid".to_owned() };
    let open = |part| {
        let store = runtime.block_on(Redis::open(&settings, dir.path(), part));
        Arc::new(store.expect("opens")) as Arc<dyn Store>
    };
    let (control, edge) = (open(Part::Control), open(Part::Edge));
    run("redis", &runtime.block_on(Grid::new(edge, control)));
    group.finish();
}

/// Has everything on the disk before it answers; ended when it is dropped.
struct Server(Child);

impl Server {
    fn start(socket: &Path) -> Self {
        let process = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "yes", "--appendfsync", "always"])
            .arg("--dir")
            .arg(socket.parent().expect("a directory"))
            .arg("--unixsocket")
            .arg(socket)
            .stdout(Stdio::null())
            .spawn();
        let process = Self(process.expect("redis-server is installed: scripts/setup test"));
        let until = Instant::now() + Duration::from_secs(10);
        while !socket.exists() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
        process
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

criterion_group!(benches, wakes);
criterion_main!(benches);

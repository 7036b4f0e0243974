//! From source text to image. One runner layer per runtime (user, runner, health check) is built
//! when it is first needed; a function's image adds nothing but its code.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use crate::{
    egress,
    engine::{Engine, Labels, label, labels},
    error::{Error, Result},
    health::{Dependency, Health},
    name::InstanceId,
    runtime::{Runtime, Runtimes},
    service::{Deployment, FunctionSpec},
};

/// Builds and names images.
pub struct Images {
    engine: Arc<dyn Engine>,
    instance: InstanceId,
    runtimes: Runtimes,
    /// Runner layers that are known to exist, by runtime.
    runners: Mutex<BTreeMap<String, String>>,
    /// Held while one is built, so that nobody builds it beside.
    building: tokio::sync::Mutex<()>,
}

/// What there is of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// It is not there.
    Nothing,
    /// It is there, but its runner layer is not the one that would be taken now.
    Outdated,
    /// It is there, and would not become another one if it was built now.
    Current,
}

impl Images {
    /// Nothing is built yet.
    pub fn new(engine: Arc<dyn Engine>, instance: InstanceId, runtimes: Runtimes) -> Self {
        Self { engine, instance, runtimes, runners: Mutex::default(), building: Default::default() }
    }

    /// The name of the image that a deployment runs in.
    pub fn tag(&self, deployment: &Deployment) -> String {
        format!("smsly/function-{}:{}", deployment.service, deployment.image())
    }

    /// What there is of the image that a deployment runs in.
    ///
    /// # Errors
    /// The engine's; that of the runner layer when it cannot be made.
    pub async fn find(&self, deployment: &Deployment) -> Result<Found> {
        let Some(labels) = self.engine.image_labels(&self.tag(deployment)).await? else {
            return Ok(Found::Nothing);
        };
        // A runtime that is not configured any more has none that would be taken.
        let Ok(runtime) = self.runtime(&deployment.function) else { return Ok(Found::Outdated) };
        let runner = self.runner(runtime).await?;
        let current = labels.get(label::RUNNER) == Some(&runner);
        Ok(if current { Found::Current } else { Found::Outdated })
    }

    /// Makes the runner layer of every runtime, and says in `health` when one is missing.
    pub async fn prepare(&self, health: &Health) {
        let mut problems = Vec::new();
        for runtime in self.runtimes.iter() {
            if let Err(error) = self.runner(runtime).await {
                problems.push(format!("runtime {}: {error}", runtime.name));
            }
        }
        let problem = (!problems.is_empty()).then(|| problems.join("; "));
        if health.set(Dependency::Images, problem.clone())
            && let Some(problem) = problem
        {
            tracing::error!("{problem}. Get a base image, for example with `make images`");
        }
    }

    /// A runner layer that has what every one of them has; whichever can be had.
    ///
    /// # Errors
    /// That of the last runtime, when none can be had.
    pub async fn any_runner(&self) -> Result<String> {
        let mut failure = Error::NotFound { what: "runtime", id: "of any name".to_owned() };
        for runtime in self.runtimes.iter() {
            match self.runner(runtime).await {
                Ok(tag) => return Ok(tag),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// The runner layer for a function, and the names under which its code belongs into it.
    ///
    /// # Errors
    /// `Deployment` for an unknown runtime, else the engine's.
    pub async fn runner_of(&self, function: &FunctionSpec) -> Result<(String, &[String])> {
        let runtime = self.runtime(function)?;
        Ok((self.runner(runtime).await?, &runtime.code_files))
    }

    /// Builds the image that a deployment runs in; `line` is given the build's output.
    ///
    /// # Errors
    /// `Deployment` for an unknown runtime, else the engine's.
    pub async fn build(
        &self,
        deployment: &Deployment,
        line: &mut (dyn FnMut(String) + Send),
    ) -> Result<()> {
        let runtime = self.runtime(&deployment.function)?;
        let runner = self.runner(runtime).await?;
        let mut context = Context::default();
        let mut labels = labels(&self.instance, deployment.service, deployment.image(), None);
        labels.insert(label::RUNNER.to_owned(), runner.clone());
        let dockerfile = format!("{}\n{}", runtime.template, label_line(&labels));
        context.add(Path::new("Dockerfile"), dockerfile.as_bytes());
        for file in &runtime.code_files {
            context.add(&Path::new("function").join(file), deployment.function.code.as_bytes());
        }
        let args = BTreeMap::from([("RUNNER".to_owned(), runner)]);
        self.engine.build(&self.tag(deployment), context.finish()?, args, false, line).await
    }

    fn runtime(&self, function: &FunctionSpec) -> Result<&Runtime> {
        let name = &function.runtime;
        self.runtimes.get(name).ok_or_else(|| {
            Error::Deployment(format!("The runtime {name} is not configured on this platform."))
        })
    }

    /// The runner layer of a runtime, built when this content of it does not exist yet.
    async fn runner(&self, runtime: &Runtime) -> Result<String> {
        if let Some(tag) = self.known_runner(runtime).await? {
            return Ok(tag);
        }
        let _turn = self.building.lock().await;
        if let Some(tag) = self.known_runner(runtime).await? {
            return Ok(tag);
        }
        let (base, base_id) = self.base(runtime).await?;
        let dir = runtime.runner.clone();
        let context = tokio::task::spawn_blocking(move || runner_context(&dir))
            .await
            .map_err(|e| Error::Deployment(format!("reading the runner failed: {e}")))??;
        let tag = format!("grid/runner-{}:{}", runtime.name, fingerprint(&base_id, &context));
        if self.engine.image_id(&tag).await?.is_none() {
            tracing::info!(runtime = %runtime.name, %base, "building the runner layer");
            let args = BTreeMap::from([("BASE".to_owned(), base)]);
            let mut output = |line: String| tracing::debug!(runtime = %runtime.name, "{line}");
            self.engine.build(&tag, context, args, true, &mut output).await?;
        }
        self.runners.lock().insert(runtime.name.clone(), tag.clone());
        Ok(tag)
    }

    async fn known_runner(&self, runtime: &Runtime) -> Result<Option<String>> {
        let known = self.runners.lock().get(&runtime.name).cloned();
        match known {
            Some(tag) => Ok(self.engine.image_id(&tag).await?.map(|_| tag)),
            None => Ok(None),
        }
    }

    /// The first of the runtime's base images that is here, else the first that can be had.
    async fn base(&self, runtime: &Runtime) -> Result<(String, String)> {
        let candidates: Vec<_> =
            std::iter::once(&runtime.base).chain(&runtime.fallbacks).cloned().collect();
        for image in &candidates {
            if let Some(id) = self.engine.image_id(image).await? {
                return Ok((image.clone(), id));
            }
        }
        for image in &candidates {
            tracing::info!(%image, "pulling a base image");
            if let Err(error) = self.engine.pull(image).await {
                tracing::info!(%image, %error, "not pulled");
            } else if let Some(id) = self.engine.image_id(image).await? {
                return Ok((image.clone(), id));
            }
        }
        Err(Error::NotFound { what: "base image", id: candidates.join(" or ") })
    }
}

/// A build context: a tar archive without times or owners, so that equal content is equal bytes.
#[derive(Default)]
struct Context {
    files: BTreeMap<PathBuf, Vec<u8>>,
}

impl Context {
    fn add(&mut self, path: &Path, content: &[u8]) {
        self.files.insert(path.to_owned(), content.to_owned());
    }

    fn finish(self) -> Result<Bytes> {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, content) in self.files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            archive
                .append_data(&mut header, &path, content.as_slice())
                .map_err(Error::file("pack", &path))?;
        }
        let packed = archive.into_inner().map_err(Error::file("pack", Path::new("context")))?;
        Ok(packed.into())
    }
}

/// Everything in a runner's directory but its tests, and the ranges that its guard denies.
fn runner_context(dir: &Path) -> Result<Bytes> {
    let mut context = Context::default();
    context.add(Path::new("egress.txt"), egress::RANGES.as_bytes());
    let mut open = vec![dir.to_owned()];
    while let Some(path) = open.pop() {
        for entry in std::fs::read_dir(&path).map_err(Error::file("list", &path))? {
            let path = entry.map_err(Error::file("list", &path))?.path();
            let name = path.file_name().unwrap_or_default();
            if path.is_dir() {
                if name != "test" && name != "__pycache__" {
                    open.push(path);
                }
                continue;
            }
            let content = std::fs::read(&path).map_err(Error::file("read", &path))?;
            context.add(path.strip_prefix(dir).unwrap_or(&path), &content);
        }
    }
    context.finish()
}

/// One line for all labels: the classic builder makes a layer, and takes a tenth of a second, for
/// each label that it is given in its options.
fn label_line(labels: &Labels) -> String {
    let pairs: Vec<_> = labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
    format!("LABEL {}\n", pairs.join(" "))
}

fn fingerprint(base_id: &str, context: &[u8]) -> String {
    let digest = Sha256::new().chain_update(base_id).chain_update(context).finalize();
    digest[..6].iter().map(|byte| format!("{byte:02x}")).collect()
}

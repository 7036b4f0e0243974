//! Images of Docker Engine: look up, pull, build, list, remove.

use std::collections::{BTreeMap, HashMap};

use bollard::{
    body_full,
    errors::Error as ClientError,
    models::{ImageInspect, ImageSummary},
    query_parameters::{
        BuildImageOptionsBuilder, CreateImageOptionsBuilder, ListImagesOptionsBuilder,
        RemoveImageOptionsBuilder,
    },
};
use bytes::Bytes;
use futures_util::TryStreamExt;

use super::{Docker, call, call_unless_gone, failure, of_instance};
use crate::{
    engine::{Image, Labels, label},
    error::{Error, Result},
    limits,
    name::{InstanceId, ServiceId},
};

impl Docker {
    pub(super) async fn find_image(&self, image: &str) -> Result<Option<String>> {
        let found =
            call_unless_gone("inspect image", image, self.client()?.inspect_image(image)).await?;
        Ok(found.and_then(|image| image.id))
    }

    pub(super) async fn labels_of_image(&self, image: &str) -> Result<Option<Labels>> {
        let found =
            call_unless_gone("inspect image", image, self.client()?.inspect_image(image)).await?;
        let labels = |image: ImageInspect| image.config.and_then(|config| config.labels);
        Ok(found.map(|image| labels(image).into_iter().flatten().collect()))
    }

    pub(super) async fn pull_image(&self, image: &str) -> Result<()> {
        let options = CreateImageOptionsBuilder::default().from_image(image).build();
        let progress = self.client()?.create_image(Some(options), None, None);
        let exhausted = progress.try_for_each(|_| async { Ok(()) });
        call("pull image", image, limits::PULL, exhausted).await
    }

    pub(super) async fn build_image(
        &self,
        tag: &str,
        context: Bytes,
        args: BTreeMap<String, String>,
        network: bool,
        line: &mut (dyn FnMut(String) + Send),
    ) -> Result<()> {
        let args: HashMap<String, String> = args.into_iter().collect();
        let options = BuildImageOptionsBuilder::default()
            .dockerfile("Dockerfile")
            .t(tag)
            .rm(true)
            .forcerm(true)
            .buildargs(&args)
            // Two builds that share a cached layer fail when its last image is removed meanwhile.
            .nocache(true)
            .networkmode(if network { "default" } else { "none" })
            .build();
        let mut output =
            std::pin::pin!(self.client()?.build_image(options, None, Some(body_full(context))));
        let follow = async {
            while let Some(info) = output.try_next().await? {
                if let Some(error) = info.error_detail.and_then(|detail| detail.message) {
                    return Err(ClientError::DockerStreamError { error });
                }
                for text in info.stream.iter().flat_map(|text| text.lines()) {
                    if !text.trim().is_empty() {
                        line(text.to_owned());
                    }
                }
            }
            Ok(())
        };
        match tokio::time::timeout(limits::BUILD, follow).await {
            Ok(outcome) => outcome.map_err(|error| failure("build image", tag, error)),
            // An engine that hangs is noticed long before: it is this build that does not end, and
            // it would not the next time.
            Err(_) => Err(Error::Engine {
                operation: "build image",
                subject: tag.to_owned(),
                reason: format!("not at its end after {} s", limits::BUILD.as_secs()),
            }),
        }
    }

    pub(super) async fn list_images(
        &self,
        instance: &InstanceId,
        service: Option<ServiceId>,
    ) -> Result<Vec<Image>> {
        let options =
            ListImagesOptionsBuilder::default().filters(&of_instance(instance, service)).build();
        let list = self.client()?.list_images(Some(options));
        let images = call("list images", "of this Grid", limits::ENGINE_CALL, list).await?;
        Ok(images.iter().flat_map(ours).collect())
    }

    pub(super) async fn delete_image(&self, name: &str) -> Result<()> {
        let options = RemoveImageOptionsBuilder::default().build();
        let client = self.client()?;
        let removal = async {
            match client.remove_image(name, Some(options), None).await {
                // Still used by a container that is on its way out: the next pruning gets it.
                Err(ClientError::DockerResponseServerError { status_code: 409, message }) => {
                    tracing::debug!(image = name, reason = message, "the image is not removed yet");
                    Ok(vec![])
                }
                other => other,
            }
        };
        call_unless_gone("remove image", name, removal).await.map(|_| ())
    }
}

fn ours(image: &ImageSummary) -> Vec<Image> {
    let field = |name: &str| image.labels.get(name);
    let (Some(service), Some(deployment)) = (
        field(label::SERVICE).and_then(|text| text.parse().ok()),
        field(label::DEPLOYMENT).and_then(|text| text.parse().ok()),
    ) else {
        return Vec::new();
    };
    let tags = image.repo_tags.iter().filter(|tag| *tag != "<none>:<none>");
    let mut names: Vec<String> = tags.cloned().collect();
    if names.is_empty() {
        names.push(image.id.clone());
    }
    let created = image.created;
    names.into_iter().map(|name| Image { name, service, deployment, created }).collect()
}

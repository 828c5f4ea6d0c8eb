//! KEDA's external scaler.
//!
//! Unary calls answer from memory: KEDA holds a lock while it waits. Only what is not known is waited for, for a moment. Streams never end with an error: KEDA would
//! back off for up to a minute, and forget to come back sooner for the rest of its life.

mod objects;
mod pulse;
mod stream;
mod subject;

pub use objects::Objects;
pub use stream::{StreamState, Streams};

use crate::{
    hub::{Hub, Phase},
    index::{Entry, Metrics},
    ledger::Route,
};
use futures::{Stream, StreamExt};
use sluice_core::{
    metric::{as_integer, concurrency_name, http_scaled_object_name, rate_name},
    route::Kind,
};
use sluice_proto::keda::{
    GetMetricSpecResponse, GetMetricsRequest, GetMetricsResponse, IsActiveResponse, MetricSpec, MetricValue,
    ScaledObjectRef,
    external_scaler_server::{ExternalScaler, ExternalScalerServer},
};
use std::{
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};
use subject::Subject;
use tonic::{Code, Request, Response, Status};

/// KEDA's references are small: a name and a trigger's metadata.
const MAX_MESSAGE: usize = 256 * 1024;

/// How long an object that is not known is waited for. Who makes an object and its ScaledObject at once tells KEDA at
/// the same moment as our watch, and KEDA would take an error for an HPA without metrics, to be tried again later.
const GRACE: Duration = Duration::from_secs(1);

/// The service.
#[derive(Clone, Debug)]
pub struct KedaService {
    hub: Arc<Hub>,
}

/// A metric of an object.
#[derive(Clone, Debug, PartialEq)]
struct Metric {
    name: String,
    target: u32,
    of: Value,
}

/// What a metric is the value of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    Concurrency,
    Rate,
}

// === impl KedaService ===

impl KedaService {
    /// The service, ready to be served.
    pub fn server(hub: Arc<Hub>) -> ExternalScalerServer<Self> {
        ExternalScalerServer::new(Self { hub }).max_decoding_message_size(MAX_MESSAGE)
    }

    /// As [`KedaService::find`], once the object is known, or is late.
    async fn find_soon(&self, reference: &ScaledObjectRef) -> Result<(Subject, Vec<Metric>), Status> {
        let subject = read(reference)?;
        let news = self.hub.objects.news(&subject);
        let known = async {
            loop {
                let mut changed = pin!(news.notified());
                // Before it is looked at: what comes after is seen as a change.
                changed.as_mut().enable();
                match self.find(Some(reference)) {
                    Err(status) if matches!(status.code(), Code::NotFound | Code::Unavailable) => {
                        changed.await;
                    }
                    found => return found,
                }
            }
        };
        match tokio::time::timeout(GRACE, known).await {
            Ok(found) => found,
            Err(_late) => self.find(Some(reference)),
        }
    }

    /// The object that KEDA asks about, with its metrics.
    fn find(&self, reference: Option<&ScaledObjectRef>) -> Result<(Subject, Vec<Metric>), Status> {
        let reference = reference.ok_or_else(|| Status::invalid_argument("scaledObjectRef is missing"))?;
        let subject = read(reference)?;
        if let Some(metrics) = metrics(&self.hub, &subject) {
            return Ok((subject, metrics));
        }
        if self.hub.phase() == Phase::Starting {
            return Err(Status::unavailable("objects are still being read; ask again"));
        }
        let index = self.hub.index();
        Err(match index.get(subject.kind, &subject.namespace, &subject.name) {
            Some(entry) => {
                let flaws: Vec<String> =
                    entry.flaws.iter().map(|flaw| format!("{} {flaw}", flaw.field())).collect();
                Status::failed_precondition(format!("{subject} cannot be used: {}", flaws.join("; ")))
            }
            None => Status::not_found(format!(
                "{subject} is not known; create it, or correct the trigger's metadata of ScaledObject {}/{}",
                reference.namespace, reference.name
            )),
        })
    }
}

#[tonic::async_trait]
impl ExternalScaler for KedaService {
    type StreamIsActiveStream = Pin<Box<dyn Stream<Item = Result<IsActiveResponse, Status>> + Send>>;
    type StreamMetricSpecStream = Pin<Box<dyn Stream<Item = Result<GetMetricSpecResponse, Status>> + Send>>;

    async fn is_active(
        &self,
        request: Request<ScaledObjectRef>,
    ) -> Result<Response<IsActiveResponse>, Status> {
        let (subject, _) = self.find(Some(request.get_ref()))?;
        let now = self.hub.clock.now();
        let result = subject.routes(&self.hub).iter().any(|route| route.look(now).is_active);
        Ok(Response::new(IsActiveResponse { result }))
    }

    async fn stream_is_active(
        &self,
        request: Request<ScaledObjectRef>,
    ) -> Result<Response<Self::StreamIsActiveStream>, Status> {
        let reference = request.into_inner();
        let subject = read(&reference)?;
        let told = stream::activity(Arc::clone(&self.hub), &reference, subject);
        Ok(Response::new(Box::pin(told.map(|result| Ok(IsActiveResponse { result })))))
    }

    async fn get_metric_spec(
        &self,
        request: Request<ScaledObjectRef>,
    ) -> Result<Response<GetMetricSpecResponse>, Status> {
        let (_, metrics) = self.find_soon(request.get_ref()).await?;
        Ok(Response::new(specs(&metrics)))
    }

    async fn get_metrics(
        &self,
        request: Request<GetMetricsRequest>,
    ) -> Result<Response<GetMetricsResponse>, Status> {
        let GetMetricsRequest { scaled_object_ref, metric_name } = request.into_inner();
        let (subject, metrics) = self.find(scaled_object_ref.as_ref())?;
        let routes = subject.routes(&self.hub);
        let now = self.hub.clock.now();
        let asked = metrics.into_iter().filter(|metric| metric_name.is_empty() || metric.name == metric_name);
        let values = asked.map(|metric| {
            let value = |route: &Arc<Route>| match metric.of {
                Value::Concurrency => route.concurrency(now),
                Value::Rate => route.rate(now),
            };
            let value = routes.iter().map(value).sum();
            MetricValue {
                metric_name: metric.name,
                metric_value: as_integer(value),
                metric_value_float: value,
            }
        });
        Ok(Response::new(GetMetricsResponse { metric_values: values.collect() }))
    }

    async fn stream_metric_spec(
        &self,
        request: Request<ScaledObjectRef>,
    ) -> Result<Response<Self::StreamMetricSpecStream>, Status> {
        let reference = request.into_inner();
        let subject = read(&reference)?;
        let told = stream::metric_specs(Arc::clone(&self.hub), subject);
        Ok(Response::new(Box::pin(told.map(|metrics| Ok(specs(&metrics))))))
    }
}

fn read(reference: &ScaledObjectRef) -> Result<Subject, Status> {
    Subject::read(reference).map_err(|error| Status::invalid_argument(error.to_string()))
}

/// The metrics of an object; `None` if it is not known, or nothing can be made of it.
fn metrics(hub: &Hub, subject: &Subject) -> Option<Vec<Metric>> {
    let index = hub.index();
    let Metrics { concurrency, rate } = index
        .get(subject.kind, &subject.namespace, &subject.name)
        .and_then(|Entry { spec, .. }| Some(spec.as_ref()?.metrics))?;
    let name = |of| match (subject.kind, of) {
        // It has one metric, whichever that is.
        (Kind::HttpScaledObject, _) => http_scaled_object_name(&subject.namespace, &subject.name),
        (Kind::InterceptorRoute, Value::Concurrency) => concurrency_name(&subject.name),
        (Kind::InterceptorRoute, Value::Rate) => rate_name(&subject.name),
    };
    let concurrency = concurrency.map(|target| (Value::Concurrency, target));
    let rate = rate.map(|rate| (Value::Rate, rate.target));
    let metrics = concurrency.into_iter().chain(rate);
    Some(metrics.map(|(of, target)| Metric { name: name(of), target, of }).collect())
}

fn specs(metrics: &[Metric]) -> GetMetricSpecResponse {
    let specs = metrics.iter().map(|metric| MetricSpec {
        metric_name: metric.name.clone(),
        target_size: metric.target.into(),
        target_size_float: metric.target.into(),
    });
    GetMetricSpecResponse { metric_specs: specs.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Args,
        source::{Batch, Event, Object},
    };
    use clap::Parser;
    use serde_json::json;

    #[tokio::test(start_paused = true)]
    async fn before_objects_are_read_nothing_is_known_to_be_missing() {
        let config = Args::try_parse_from(["sluice-scaler", "--config-dir=/"]).unwrap().resolve().unwrap();
        let hub = Arc::new(Hub::new(&config));
        let service = KedaService { hub: Arc::clone(&hub) };
        let reference = || {
            Request::new(ScaledObjectRef {
                scaler_metadata: [("interceptorRoute".to_owned(), "app".to_owned())].into(),
                ..ScaledObjectRef::default()
            })
        };
        let status = service.get_metric_spec(reference()).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        hub.take(Batch { synced: true, ..Batch::default() });
        let status = service.get_metric_spec(reference()).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound);
    }

    #[tokio::test(start_paused = true)]
    async fn an_object_that_comes_a_moment_after_its_scaled_object_is_waited_for() {
        let config = Args::try_parse_from(["sluice-scaler", "--config-dir=/"]).unwrap().resolve().unwrap();
        let hub = Arc::new(Hub::new(&config));
        hub.take(Batch { synced: true, ..Batch::default() });
        let service = KedaService { hub: Arc::clone(&hub) };
        let reference = ScaledObjectRef {
            namespace: "ns".to_owned(),
            scaler_metadata: [("interceptorRoute".to_owned(), "app".to_owned())].into(),
            ..ScaledObjectRef::default()
        };
        let asked = tokio::spawn(async move { service.get_metric_spec(Request::new(reference)).await });
        tokio::time::sleep(GRACE / 2).await;
        assert!(!asked.is_finished());
        let route = json!({
            "apiVersion": "http.keda.sh/v1beta1", "kind": "InterceptorRoute",
            "metadata": {"name": "app", "namespace": "ns"},
            "spec": {
                "target": {"service": "app", "port": 80},
                "scalingMetric": {"concurrency": {"targetValue": 5}},
            },
        });
        let object = Object::InterceptorRoute(Box::new(serde_json::from_value(route).unwrap()));
        hub.take(Batch { events: vec![Event::Apply(object)], ..Batch::default() });
        let specs = asked.await.unwrap().unwrap().into_inner().metric_specs;
        assert_eq!(specs[0].metric_name, "http_app_concurrency");
    }
}

//! What lets others see to the number of pods that process events: a HorizontalPodAutoscaler by a metric that the Siem names, or KEDA.
//!
//! KEDA reads what the operator itself reads, the workers' metrics: a number over plain HTTP, which any pod may read. To ask RabbitMQ, KEDA
//! would need a user of it, whose password it may then read, a way through its NetworkPolicy from a namespace that is not known here, and
//! the SIEM's authority; and RabbitMQ's protocol has no right that lets somebody count and not take.

use k8s_openapi::api::{
    apps::v1::Deployment,
    autoscaling::v2::{
        CrossVersionObjectReference, ExternalMetricSource, HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscaler,
        HorizontalPodAutoscalerBehavior, HorizontalPodAutoscalerSpec, MetricIdentifier, MetricSpec, MetricTarget,
    },
    core::v1::{Service, ServiceSpec},
};
use k8s_openapi::apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::LabelSelector};
use redoubt_crds::ExternalMetric;
use serde_json::json;

use crate::siem::{
    autoscale,
    child::Child,
    foreign::Foreign,
    owner::Component,
    pod::{HEALTH_PORT, HEALTH_PORT_NAME, service_port},
    validate::Valid,
};

/// How long fewer pods must have been enough before one goes, and how long it takes until the next one does, in seconds.
const CALM: i32 = autoscale::CALM.as_secs() as i32;
/// How often the work is looked at, in seconds.
const WORK: i32 = autoscale::WORK.as_secs() as i32;

/// The ScaledObject, where the work is to say how many pods there are, and the cluster has that kind.
pub(crate) fn scaled_object(valid: &Valid) -> Option<Child> {
    let wanted = valid.siem.process.autoscale.as_ref().filter(|_| valid.foreign.contains(&Foreign::ScaledObject))?;
    let name = name(valid);
    let (least, most) = autoscale::bounds(wanted);
    let spec = json!({
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
        "minReplicaCount": least,
        "maxReplicaCount": most,
        "pollingInterval": WORK,
        "advanced": {"horizontalPodAutoscalerConfig": {"behavior": pace()}},
        "triggers": [{
            "type": "metrics-api",
            "metricType": "AverageValue",
            "metadata": {
                "url": format!("http://{name}.{}.svc:{HEALTH_PORT}/metrics", valid.owner.namespace),
                "format": "prometheus",
                "valueLocation": autoscale::SERIES,
                "targetValue": wanted.backlog_per_replica.to_string(),
            },
        }],
    });
    Some(Child::foreign(Foreign::ScaledObject, &valid.owner.child(name, Component::Process), &spec))
}

/// The HorizontalPodAutoscaler, where the Siem names a metric for it.
pub(crate) fn autoscaler(valid: &Valid) -> Option<HorizontalPodAutoscaler> {
    let wanted = valid.siem.process.autoscale.as_ref()?;
    let metric = wanted.external_metric.as_ref()?;
    let (least, most) = autoscale::bounds(wanted);
    let name = name(valid);
    Some(HorizontalPodAutoscaler {
        metadata: valid.owner.child(name.clone(), Component::Process),
        spec: Some(HorizontalPodAutoscalerSpec {
            scale_target_ref: CrossVersionObjectReference { api_version: Some("apps/v1".to_owned()), kind: "Deployment".to_owned(), name },
            min_replicas: Some(least.into()),
            max_replicas: most.into(),
            metrics: Some(vec![batches_that_wait(metric, wanted.backlog_per_replica)]),
            behavior: Some(pace()),
        }),
        status: None,
    })
}

fn batches_that_wait(metric: &ExternalMetric, for_each_pod: u32) -> MetricSpec {
    let selector = (!metric.match_labels.is_empty())
        .then(|| LabelSelector { match_labels: Some(metric.match_labels.clone()), match_expressions: None });
    let target = MetricTarget {
        type_: "AverageValue".to_owned(),
        average_value: Some(Quantity(for_each_pod.to_string())),
        ..MetricTarget::default()
    };
    MetricSpec {
        type_: "External".to_owned(),
        external: Some(ExternalMetricSource { metric: MetricIdentifier { name: metric.name.clone(), selector }, target }),
        ..MetricSpec::default()
    }
}

/// The operator's own pace.
fn pace() -> HorizontalPodAutoscalerBehavior {
    let rules = |calm, type_: &str, value, period_seconds| HPAScalingRules {
        stabilization_window_seconds: Some(calm),
        policies: Some(vec![HPAScalingPolicy { type_: type_.to_owned(), value, period_seconds }]),
        ..HPAScalingRules::default()
    };
    HorizontalPodAutoscalerBehavior { scale_up: Some(rules(0, "Percent", 100, WORK)), scale_down: Some(rules(CALM, "Pods", 1, CALM)) }
}

/// Where KEDA finds the metrics: each pod that processes events tells how many batches wait for all of them. It is there also where KEDA is
/// not, so that it does not go while nobody can tell.
pub(crate) fn service(valid: &Valid) -> Option<Service> {
    valid.siem.process.autoscale.as_ref()?;
    Some(Service {
        metadata: valid.owner.child(name(valid), Component::Process),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            selector: valid.owner.pods(Component::Process).match_labels,
            ports: Some(vec![service_port(HEALTH_PORT_NAME.to_owned(), HEALTH_PORT, "TCP")]),
            ..ServiceSpec::default()
        }),
        status: None,
    })
}

/// Takes the number of pods out of the Deployment that somebody else scales.
pub(crate) fn leave_replicas(valid: &Valid, roles: &mut [Deployment]) {
    let process = roles.iter_mut().find(|role| role.metadata.name == Some(name(valid)));
    if let Some(spec) = process.and_then(|process| process.spec.as_mut()) {
        spec.replicas = None;
    }
}

fn name(valid: &Valid) -> String {
    valid.owner.siem.shared().role(Component::Process.as_str())
}

use http::StatusCode;
use kube::core::DeserializeGuard;
use redoubt_crds::Siem;
use serde_json::{Value, json};

use super::*;
use crate::{
    siem::{Context, Options, endpoint, look, testing},
    testing::api::Api,
};

/// An API server that has all these kinds.
fn all_served() -> Api {
    let api = Api::default();
    for kind in Foreign::ALL {
        serve(&api, kind);
    }
    api
}

fn serve(api: &Api, kind: Foreign) {
    let resource = kind.resource();
    api.state().served.insert(resource.api_version, vec![resource.plural]);
}

fn presences(presence: [Presence; 3]) -> Presences {
    Presences(Foreign::ALL.into_iter().zip(presence).collect())
}

fn later(seconds: i64) -> Timestamp {
    testing::now() + SignedDuration::from_secs(seconds)
}

#[tokio::test]
async fn a_kind_is_there_when_discovery_lists_it() {
    let api = Api::default();
    serve(&api, Foreign::PodMonitor);
    // The group is there, and has another kind.
    api.state().served.insert("gateway.networking.k8s.io/v1".to_owned(), vec!["gateways".to_owned()]);

    let (found, _) = discover(&api.client(), None, testing::now()).await;

    assert_eq!(found, presences([Presence::Absent, Presence::Served, Presence::Absent]));
}

#[tokio::test]
async fn what_is_known_is_not_asked_again_until_it_is_old() {
    let api = all_served();
    let (_, memory) = discover(&api.client(), None, testing::now()).await;
    let asked = api.state().faults.calls;

    for (seconds, calls) in [(1, 0), (29, 0), (30, 3), (60, 3)] {
        discover(&api.client(), Some(memory.clone()), later(seconds)).await;

        assert_eq!(api.state().faults.calls - asked, calls, "after {seconds} s");
        api.state().faults.calls = asked;
    }
}

#[tokio::test]
async fn while_discovery_fails_what_was_known_holds_and_is_asked_again() {
    let api = all_served();
    let (before, memory) = discover(&api.client(), None, testing::now()).await;
    api.state().discovery_fails = Some(StatusCode::SERVICE_UNAVAILABLE);

    let (during, memory) = discover(&api.client(), Some(memory), later(100)).await;

    assert_eq!(during, before);
    api.state().discovery_fails = None;
    api.state().served.clear();
    let (after, _) = discover(&api.client(), Some(memory), later(101)).await;
    assert_eq!(after, presences([Presence::Absent, Presence::Absent, Presence::Absent]));
}

#[tokio::test]
async fn where_nothing_was_known_a_failing_discovery_tells_nothing() {
    let api = all_served();
    api.state().discovery_fails = Some(StatusCode::SERVICE_UNAVAILABLE);

    let (found, _) = discover(&api.client(), None, testing::now()).await;

    for kind in Foreign::ALL {
        assert!(matches!(found.of(kind), Presence::Unknown(why) if !why.is_empty()), "{kind:?}: {found:?}");
    }
}

/// A Siem that asks for all of them, and an operator.
struct Site {
    api: Api,
    operator: Context,
    seconds: i64,
}

impl Site {
    fn new(api: Api) -> Self {
        let siem = testing::siem_of(&json!({
            "ingest": {
                "ingress": {"hosts": ["ingest.example.com"]},
                "httpRoute": {"parentRefs": [{"name": "public"}]},
            },
            "process": {"autoscale": {"minReplicas": 2, "maxReplicas": 9}},
            "monitoring": {"when": "Always"},
            // Without servers to wait for.
            "broker": {"external": {"urls": ["amqps://mq.example.net"], "credentialsSecretRef": {"name": "mq"}}},
            "store": {"external": {"urls": ["https://es.example.net"], "credentialsSecretRef": {"name": "es"}}},
        }));
        let mut siem = serde_json::to_value(siem).unwrap();
        siem["metadata"] = json!({"name": "soc", "namespace": "security"});
        api.state().now = testing::now();
        api.state().create("siems", siem);
        let operator = operator(&api);
        Self { api, operator, seconds: 0 }
    }

    /// Looks at it again, when what was known is old.
    async fn look(&mut self) -> Result<(), String> {
        self.seconds += 100;
        let siem: DeserializeGuard<Siem> = serde_json::from_value(self.api.state().get("siems", "soc").unwrap().clone()).unwrap();
        look(&siem, &self.operator, later(self.seconds)).await.map(drop).map_err(|error| error.to_string())
    }

    fn get(&self, plural: &str, name: &str) -> Option<Value> {
        self.api.state().get(plural, name).cloned()
    }

    fn are_there(&self) -> [bool; 4] {
        [("ingresses", "soc-ingest"), ("httproutes", "soc-ingest"), ("podmonitors", "soc-worker"), ("scaledobjects", "soc-process")]
            .map(|(plural, name)| self.get(plural, name).is_some())
    }

    /// Reason and message of the condition `Degraded`.
    fn degraded(&self) -> (String, String) {
        let siem = self.get("siems", "soc").unwrap();
        let condition = siem["status"]["conditions"].as_array().unwrap().iter().find(|condition| condition["type"] == "Degraded").unwrap();
        (condition["reason"].as_str().unwrap().to_owned(), condition["message"].as_str().unwrap().to_owned())
    }

    fn replicas(&self) -> Value {
        self.get("deployments", "soc-process").unwrap()["spec"]["replicas"].clone()
    }

    /// As many as the operator has written.
    fn applied_replicas(&self) -> Value {
        self.api.state().applied_by("deployments", "soc-process", "redoubt-operator")["spec"]["replicas"].clone()
    }
}

fn operator(api: &Api) -> Context {
    let options = Options { images: testing::images(), operator: Some(testing::operator()), namespace: None, concurrency: 1 };
    Context { client: api.client(), connect: endpoint::network(), options, memories: std::sync::Mutex::default() }
}

#[tokio::test]
async fn what_the_cluster_has_no_kind_for_is_told_with_the_remedy_and_all_else_goes_on() {
    let mut site = Site::new(Api::default());

    site.look().await.unwrap();

    assert_eq!(site.are_there(), [true, false, false, false]);
    assert!(site.get("deployments", "soc-process").is_some());
    let (reason, message) = site.degraded();
    assert_eq!(reason, "KindIsMissing");
    assert!(
        message.starts_with("spec.ingest.httpRoute: the cluster has no HTTPRoute (gateway.networking.k8s.io/v1): install"),
        "{message}"
    );

    for kind in Foreign::ALL {
        serve(&site.api, kind);
    }
    site.look().await.unwrap();

    assert_eq!(site.are_there(), [true; 4]);
    assert_eq!(site.degraded().0, "AsExpected");
}

#[tokio::test]
async fn at_rest_nothing_is_written_and_what_somebody_does_is_put_right() {
    let mut site = Site::new(all_served());
    site.look().await.unwrap();
    site.look().await.unwrap();
    site.api.state().faults.log.clear();

    site.look().await.unwrap();
    let calls = site.api.state().faults.log.clone();
    assert!(calls.iter().all(|call| call.starts_with("GET ")), "{calls:#?}");

    site.api.state().remove("httproutes", "soc-ingest");
    site.api.state().edit("podmonitors", "soc-worker", |live| live["spec"]["podMetricsEndpoints"] = json!([]));
    site.api.state().edit("scaledobjects", "soc-process", |live| live["spec"]["maxReplicaCount"] = json!(99));
    site.api.state().edit("ingresses", "soc-ingest", |live| live["spec"]["rules"] = json!([]));
    site.look().await.unwrap();

    assert_eq!(site.are_there(), [true; 4]);
    assert_eq!(site.get("podmonitors", "soc-worker").unwrap()["spec"]["podMetricsEndpoints"][0]["port"], "health");
    assert_eq!(site.get("scaledobjects", "soc-process").unwrap()["spec"]["maxReplicaCount"], 9);
    assert_eq!(site.get("ingresses", "soc-ingest").unwrap()["spec"]["rules"][0]["host"], "ingest.example.com");
}

#[tokio::test]
async fn what_is_asked_for_no_more_goes() {
    let mut site = Site::new(all_served());
    site.look().await.unwrap();
    site.api.state().edit("siems", "soc", |siem| {
        siem["spec"]["ingest"] = json!({});
        siem["spec"]["process"] = json!({});
        siem["spec"]["monitoring"] = json!({"when": "Never"});
    });

    site.look().await.unwrap();

    assert_eq!(site.are_there(), [false; 4]);
    assert!(site.get("services", "soc-process").is_none());
    assert_eq!(site.replicas(), 2);
}

#[tokio::test]
async fn a_failing_discovery_changes_nothing() {
    let mut site = Site::new(all_served());
    site.look().await.unwrap();
    site.api.state().discovery_fails = Some(StatusCode::SERVICE_UNAVAILABLE);
    site.api.state().edit("siems", "soc", |siem| siem["spec"]["retention"] = json!({"events": "9d"}));

    site.look().await.unwrap();
    assert_eq!(site.are_there(), [true; 4]);
    assert_eq!(site.degraded().0, "AsExpected");

    // Nor where the operator was started anew meanwhile.
    site.operator = operator(&site.api);
    site.api.state().edit("deployments", "soc-process", |live| live["spec"]["replicas"] = json!(7));
    site.look().await.unwrap();
    assert_eq!(site.are_there(), [true; 4]);
    assert_eq!(site.replicas(), 7);
    assert_eq!(site.degraded().0, "KindIsUnknown");
}

#[tokio::test]
async fn the_number_of_pods_is_left_to_keda_and_taken_back_when_it_goes() {
    let mut site = Site::new(all_served());
    site.look().await.unwrap();
    assert_eq!(site.replicas(), 2, "as many as there are at least, for a beginning");
    site.api.state().scale("deployments", "soc-process", 7);

    site.look().await.unwrap();

    assert_eq!((site.replicas(), site.applied_replicas()), (json!(7), Value::Null));
    site.api.state().scale("deployments", "soc-process", 5);
    site.look().await.unwrap();
    assert_eq!(site.replicas(), 5);

    site.api.state().served.clear();
    site.look().await.unwrap();

    assert_eq!((site.replicas(), site.applied_replicas()), (json!(5), json!(5)));
}

#[tokio::test]
async fn with_a_metric_the_number_of_pods_is_left_to_an_autoscaler() {
    for api in [Api::default(), all_served()] {
        let mut site = Site::new(api);
        site.look().await.unwrap();
        site.api.state().edit("siems", "soc", |siem| {
            siem["spec"]["process"]["autoscale"]["externalMetric"] = json!({"name": "waiting", "matchLabels": {"siem": "soc"}});
        });

        site.look().await.unwrap();

        assert!(site.get("scaledobjects", "soc-process").is_none(), "two would be at odds");
        let autoscaler = site.get("horizontalpodautoscalers", "soc-process").unwrap();
        assert_eq!((&autoscaler["spec"]["minReplicas"], &autoscaler["spec"]["maxReplicas"]), (&json!(2), &json!(9)));
        assert_eq!(
            autoscaler["spec"]["metrics"],
            json!([{"type": "External", "external": {
                "metric": {"name": "waiting", "selector": {"matchLabels": {"siem": "soc"}}},
                "target": {"type": "AverageValue", "averageValue": "200"},
            }}])
        );
        site.api.state().scale("deployments", "soc-process", 7);
        site.look().await.unwrap();
        assert_eq!((site.replicas(), site.applied_replicas()), (json!(7), Value::Null));

        site.api.state().served.clear();
        site.api.state().edit("siems", "soc", |siem| siem["spec"]["process"]["autoscale"]["externalMetric"] = Value::Null);
        site.look().await.unwrap();
        assert!(site.get("horizontalpodautoscalers", "soc-process").is_none());
        assert_eq!((site.replicas(), site.applied_replicas()), (json!(7), json!(7)));
    }
}

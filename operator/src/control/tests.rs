//! Controllers against an API server that answers as a test wants, or not at all.

use super::*;
use futures::FutureExt;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// A request: its method and path, and its body.
type Request = (String, Value);

/// An API server that gives these answers, by method and path; it keeps silent where there is none. Gives a client of it,
/// and the requests.
async fn api_server(
    answer: impl Fn(&str) -> Option<(u16, Value)> + Clone + Send + 'static,
) -> (Client, mpsc::UnboundedReceiver<Request>) {
    let (seen, requests) = mpsc::unbounded();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, seen.clone(), answer.clone()));
        }
    });
    let client = Client::try_from(kube::Config::new(address.parse().unwrap())).unwrap();
    (client, requests)
}

async fn serve(
    mut stream: TcpStream,
    seen: mpsc::UnboundedSender<Request>,
    answer: impl Fn(&str) -> Option<(u16, Value)>,
) {
    let mut read = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = read.windows(4).position(|it| it == b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut read).await.is_ok_and(|read| read > 0) {
                continue;
            }
            return;
        };
        let head = String::from_utf8_lossy(&read[..end]).to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length = length.map_or(0, |length| length.parse().unwrap());
        while read.len() < end + length {
            assert!(stream.read_buf(&mut read).await.unwrap() > 0);
        }
        let head = String::from_utf8_lossy(&read[..end]).into_owned();
        let body = serde_json::from_slice(&read[end..end + length]).unwrap_or_default();
        read.drain(..end + length);
        let mut words = head.split([' ', '?']);
        let request = format!("{} {}", words.next().unwrap(), words.next().unwrap());
        let answered = answer(&request);
        // Nobody listens any more at the end of a test.
        let _ = seen.unbounded_send((request, body));
        let Some((status, body)) = answered else { return std::future::pending().await };
        let body = body.to_string();
        let response = format!(
            "HTTP/1.1 {status} Words\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let _ = stream.write_all(response.as_bytes()).await;
    }
}

fn filled<K>(objects: &[Value]) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + 'static,
{
    let (store, mut writer) = store();
    writer.apply_watcher_event(&watcher::Event::Init);
    for object in objects {
        writer
            .apply_watcher_event(&watcher::Event::InitApply(serde_json::from_value(object.clone()).unwrap()));
    }
    writer.apply_watcher_event(&watcher::Event::InitDone);
    store
}

/// A cluster in which everything has been read: these objects of ours, and a scaler that answers or does not.
fn context(client: Client, objects: &[Value], scaler_answers: bool) -> (Arc<Context>, watch::Sender<State>) {
    let service = json!({"metadata": {"name": "app", "namespace": "ns"}, "spec": {"ports": [{"port": 80}]}});
    let slice = json!({
        "metadata": {"name": "scaler"}, "addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}],
    });
    let slices = if scaler_answers { vec![slice] } else { Vec::new() };
    let (routes, scaled_objects) = (filled(&[]), filled(&[]));
    let stores = Stores::new(filled(objects), routes, scaled_objects, filled(&[service]), filled(&slices));
    stores.index.http.hear(&News::All);
    let read = || watch::channel(State { is_known: true, ..State::default() });
    let (keda, keda_state) = read();
    let reporter = Reporter { controller: FIELD_MANAGER.to_owned(), instance: None };
    let context = Context {
        client: client.clone(),
        scaler: Scaler {
            service: "scaler".to_owned(),
            namespace: "system".to_owned(),
            port: 9090,
            authentication: None,
        },
        reign: watch::channel(Reign::Always).1,
        metrics: Arc::new(Metrics::new()),
        recorder: Recorder::new(client, reporter),
        pace: Mutex::default(),
        evidence: Mutex::default(),
        stores,
        keda: keda_state,
        endpoints: read().1,
        isolation: None,
        read: [read().1, read().1, read().1],
        upstream: None,
        rules: None,
        envoy_filters: None,
    };
    (Arc::new(context), keda)
}

fn object(name: &str) -> Value {
    json!({
        "apiVersion": "http.keda.sh/v1alpha1", "kind": "HTTPScaledObject",
        "metadata": {"name": name, "namespace": "ns", "uid": name, "generation": 1, "resourceVersion": "7"},
        "spec": {
            "hosts": [format!("{name}.example.com")],
            "scaleTargetRef": {"name": name, "service": name, "port": 80},
        },
    })
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_keeps_silent_is_asked_again_and_everybody_gets_his_turn() {
    let (client, mut requests) = api_server(|_| None).await;
    let names: BTreeSet<String> = (0..=CONCURRENCY).map(|number| format!("app-{number}")).collect();
    let objects: Vec<Value> = names.iter().map(|name| object(name)).collect();
    let (context, _keda) = context(client, &objects, false);
    let (queue, woken) = mpsc::unbounded();
    for name in &names {
        let object: ObjectRef<Guarded<HttpScaledObject>> = ObjectRef::new(name).within("ns");
        queue.unbounded_send(object.into()).unwrap();
    }
    let (_stop, stopped) = watch::channel(false);
    let http = context.stores.http.clone();
    tokio::spawn(control(context, http, woken, http_scaled_object::reconcile, stopped));
    let path = |name: &String| {
        format!("PATCH /apis/http.keda.sh/v1alpha1/namespaces/ns/httpscaledobjects/{name}/status")
    };
    let paths: BTreeSet<String> = names.iter().map(path).collect();
    let (mut once, mut again) = (BTreeSet::new(), BTreeSet::new());
    while again != paths {
        let (request, _) = requests.next().await.unwrap();
        if !once.insert(request.clone()) {
            again.insert(request);
        }
    }
    assert_eq!(once, paths);
}

#[tokio::test]
async fn a_scaled_object_of_a_kind_that_is_gone_cannot_be_made_and_the_object_says_so() {
    let answer = |request: &str| {
        let not_found =
            json!({"kind": "Status", "code": 404, "reason": "NotFound", "message": "404 page not found"});
        match request {
            it if it.contains("/apis/keda.sh/") => Some((404, not_found)),
            it if it.ends_with("/httpscaledobjects/app/status") => Some((200, object("app"))),
            _ => Some((500, json!({}))),
        }
    };
    let (client, mut requests) = api_server(answer).await;
    let (context, keda) = context(client, &[object("app")], true);
    let mut said = async |outcome: Result<Action, Failure>| {
        loop {
            let (request, body) = requests.next().await.unwrap();
            if request.ends_with("/status") {
                let ready = &body["status"]["conditions"][0];
                let words = ["reason", "message"].map(|it| ready[it].as_str().unwrap_or_default().to_owned());
                return (outcome, words.join(": "));
            }
        }
    };
    let app = context.stores.http.get(&ObjectRef::new("app").within("ns")).unwrap();
    let look = async || http_scaled_object::reconcile(Arc::clone(&app), Arc::clone(&context)).await;
    // Before the watch has noticed.
    let (outcome, ready) = said(look().await).await;
    assert!(matches!(outcome, Err(Failure::Refused { .. })), "it is tried again: {outcome:?}");
    assert!(ready.contains("CustomResourceDefinition"), "{ready}");

    keda.send_replace(State {
        trouble: Some("the cluster has no scaledobjects.keda.sh".to_owned()),
        is_missing: true,
        ..State::default()
    });
    let (outcome, ready) = said(look().await).await;
    assert!(outcome.is_ok(), "{outcome:?}");
    assert!(ready.starts_with("KedaNotFound: "), "{ready}");
    assert!(ready.contains("the cluster has no scaledobjects.keda.sh"), "{ready}");
}

#[tokio::test]
async fn what_cannot_be_read_is_not_said_to_be_missing() {
    let (client, mut requests) = api_server(|_| Some((200, object("app")))).await;
    let (context, _keda) = context(client, &[object("app")], true);
    let mut context = Arc::into_inner(context).unwrap();
    let refused = || {
        let trouble = Some("endpointslices is forbidden".to_owned());
        watch::channel(State { trouble, ..State::default() }).1
    };
    context.endpoints = refused();
    context.read[2] = refused();
    let app = context.stores.http.get(&ObjectRef::new("app").within("ns")).unwrap();
    http_scaled_object::reconcile(app, Arc::new(context)).await.unwrap();
    let (request, body) = requests.next().await.unwrap();
    assert!(request.ends_with("/status"), "{request}");
    let said: Vec<_> = body["status"]["conditions"].as_array().unwrap().iter().collect();
    for (type_, reason) in
        [("ResolvedRefs", "ServicesUnreadable"), ("ScaledObjectReady", "EndpointsUnreadable")]
    {
        let condition = said.iter().find(|it| it["type"] == type_).unwrap();
        assert_eq!((&condition["status"], &condition["reason"]), (&json!("Unknown"), &json!(reason)));
        let message = condition["message"].as_str().unwrap();
        assert!(message.contains("cannot be read (endpointslices is forbidden); give the"), "{message}");
    }
    assert_eq!(requests.next().now_or_never(), None, "neither a ScaledObject nor an Event");
}

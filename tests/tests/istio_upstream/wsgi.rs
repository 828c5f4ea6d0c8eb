//! Servers that answer one request at a time, behind two gateways.
//!
//! Both are single processes with a synchronous worker. gunicorn's closes every connection after its answer: what
//! blocks it is a connection that nobody uses. uWSGI's keeps a connection and waits on it for the next request, as the
//! client wishes: what blocks it is a gateway's pool.

use crate::app::{cluster, filter, stat};
use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use serde_json::{Value, json};
use sluice_envoyfilter::Upstream;
use sluice_tests::{
    cluster::istio::{self, App, GATEWAY, Gateway, GatewayOptions, World},
    http::{self, Answer},
    paths, wait,
};
use std::{net::SocketAddr, process::Command, time::Duration};
use tokio::task::JoinHandle;

const APPLICATION: &str = r#"
def application(environ, start_response):
    body = ("%s\n" % environ["PATH_INFO"]).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
"#;

/// How long nothing has to happen to call it nothing. What blocks here does so for minutes.
const NOTHING: Duration = Duration::from_millis(500);

/// A Python with the servers.
struct Servers {
    python: String,
    folder: String,
}

impl Servers {
    /// `None` where they cannot be had.
    fn find() -> Result<Option<Self>> {
        let script = paths::root().join("tests/wsgi-install.sh");
        let output = Command::new("bash").arg(&script).output()?;
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        match output.status.code() {
            Some(0) => {}
            Some(77) => {
                sluice_tests::pass_over(&said);
                return Ok(None);
            }
            _ => bail!("{}: {said}", script.display()),
        }
        let text = String::from_utf8(output.stdout)?;
        let mut lines = text.lines().map(str::to_owned);
        let (Some(python), Some(folder)) = (lines.next(), lines.next()) else { bail!("it says {text:?}") };
        Ok(Some(Self { python, folder }))
    }

    /// Has an app be one of these servers, with these arguments.
    async fn run(&self, world: &World, app: &App, arguments: &[&str], probe: Option<Value>) -> Result<()> {
        let files = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": app.name, "namespace": app.namespace},
            "data": {"application.py": APPLICATION},
        });
        world.cluster.apply(&[files]).await?;
        let command = [self.python.as_str()].into_iter().chain(arguments.iter().copied()).collect::<Vec<_>>();
        let container = json!({
            "name": "app",
            "image": "python",
            "command": command,
            "env": [
                {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "PYTHONPATH", "value": self.folder},
                {"name": "PYTHONDONTWRITEBYTECODE", "value": "1"},
            ],
            "ports": [{"name": "web", "containerPort": 8080}],
            "readinessProbe": probe,
            "volumeMounts": [{"name": "files", "mountPath": "/files"}],
        });
        let pod = json!({"containers": [container], "volumes": [{"name": "files", "configMap": {"name": app.name}}]});
        let deployments = Api::<Deployment>::namespaced(world.cluster.client(), &app.namespace);
        let patch = json!({"spec": {"template": {"spec": pod}}});
        world.cluster.merge(&deployments, &app.name, &patch).await.map(drop)
    }

    /// gunicorn: one process, its sync worker.
    async fn gunicorn(&self, world: &World, app: &App) -> Result<()> {
        let arguments = [
            "-m",
            "gunicorn",
            "--workers",
            "1",
            "--worker-class",
            "sync",
            "--bind",
            "$(POD_IP):8080",
            // How long a connection that nobody uses blocks it; gunicorn's default is half a minute.
            "--timeout",
            "300",
            "--pythonpath=/files",
            "application:application",
        ];
        self.run(world, app, &arguments, Some(probe())).await
    }

    /// uWSGI: one process, one thread, HTTP/1.1 with keep-alive. Where it is blocked, so is a probe.
    async fn uwsgi(&self, world: &World, app: &App, probe: Option<Value>) -> Result<()> {
        let program = "import sys, pyuwsgi; sys.argv[0] = 'uwsgi'; pyuwsgi.run()";
        let arguments = [
            "-c",
            program,
            "--http11-socket",
            "$(POD_IP):8080",
            "--processes",
            "1",
            // How long it waits for the next request of a connection; its default is 4 s.
            "--socket-timeout",
            "300",
            "--wsgi-file=/files/application.py",
            "--die-on-term",
        ];
        self.run(world, app, &arguments, probe).await
    }
}

fn probe() -> Value {
    json!({"httpGet": {"path": "/probe", "port": "web"}})
}

/// Two gateways with the filter, and an app that both route to.
struct Two {
    world: World,
    gateways: [Gateway; 2],
    addresses: [SocketAddr; 2],
    app: App,
}

impl Two {
    async fn start(world: World) -> Result<Self> {
        // What selects Istio's own ingress gateway, in whatever namespace, selects this one too.
        let options = GatewayOptions {
            name: "second".to_owned(),
            namespace: world.namespace.clone(),
            ports: vec![(80, 18083)],
            ..GatewayOptions::default()
        };
        let second = world.istio.gateway(options).await?;
        let app = App::create(&world.istio, &world.namespace, "shop").await?;
        world
            .cluster
            .apply(&[app.virtual_service(GATEWAY, app.route()), app.scaled_object(&[&app.host()], &[])])
            .await?;
        let gateways = [world.gateway.clone(), second];
        for gateway in &gateways {
            gateway.routes(&app.host()).await?;
        }
        world.sluice.linked(&[&gateways[0], &gateways[1]]).await?;
        let addresses = [gateways[0].address(80).await?, gateways[1].address(80).await?];
        Ok(Self { world, gateways, addresses, app })
    }

    /// A request through one of the gateways, under way while the test goes on.
    fn send(&self, gateway: usize, path: &str) -> Result<JoinHandle<Result<Answer>>> {
        let request = http::get_request(&self.app.host(), path)?;
        Ok(tokio::spawn(http::request(self.addresses[gateway % 2], request)))
    }

    /// A request through one of the gateways, which must be answered by the app.
    async fn get(&self, gateway: usize, path: &str) -> Result<()> {
        let answer = tokio::time::timeout(wait::PATIENCE, self.send(gateway, path)?)
            .await
            .with_context(|| format!("{path}: no answer through gateway {gateway}"))???;
        ensure!(answer.status == 200 && answer.text() == format!("{path}\n"), "{path}: {answer:?}");
        Ok(())
    }

    async fn stat(&self, gateway: usize, name: &str) -> Result<u64> {
        stat(&self.gateways[gateway], &self.app, name).await
    }

    /// Where the app's Pod listens.
    async fn direct(&self) -> Result<SocketAddr> {
        let pods = self.app.pods().await?;
        let ip = pods.first().and_then(|pod| pod.status.as_ref()?.pod_ip.as_deref()).context("no address")?;
        Ok(format!("{ip}:8080").parse()?)
    }

    /// Waits until a gateway has a request under way.
    async fn sent(&self, gateway: usize) -> Result<()> {
        wait::until("the gateway to have sent it", async || {
            match self.stat(gateway, "upstream_rq_active").await {
                Ok(0) => Err("it has not".to_owned()),
                Ok(_) => Ok(()),
                Err(error) => Err(format!("{error:#}")),
            }
        })
        .await
    }

    /// Requests through both gateways by turns and together, and after a sleep.
    async fn is_served(&self) -> Result<()> {
        for number in 0..20 {
            self.get(number, &format!("/turn{number}")).await?;
        }
        let together = (0..20).map(|number| self.send(number, "/together")).collect::<Result<Vec<_>>>()?;
        for (number, request) in together.into_iter().enumerate() {
            let answer = tokio::time::timeout(wait::PATIENCE, request).await;
            let answer = answer.with_context(|| format!("/together: no answer to request {number}"))???;
            ensure!(answer.status == 200, "/together: {answer:?}");
        }
        Ok(())
    }

    /// One request waits in each gateway, and both are answered when the app wakes: what each gateway's look opens,
    /// its request uses.
    async fn wakes(&self) -> Result<()> {
        self.app.scale(0).await?;
        self.app.asleep().await?;
        let held = [self.send(0, "/cold0")?, self.send(1, "/cold1")?];
        self.world.held(&self.app, 2).await?;
        self.app.scale(1).await?;
        for (number, request) in held.into_iter().enumerate() {
            let answer = tokio::time::timeout(wait::PATIENCE, request).await;
            let answer = answer.with_context(|| format!("/cold{number}: no answer"))???;
            ensure!(answer.status == 200, "/cold{number}: {answer:?}");
            ensure!(answer.header("x-keda-http-cold-start") == "true", "/cold{number}: {answer:?}");
        }
        Ok(())
    }

    async fn disable_keep_alives(&self) -> Result<()> {
        let upstream = Upstream { disable_keep_alives: true, ..Upstream::default() };
        self.world.cluster.apply(&[filter(&self.app, upstream)?.context("nothing to set")?]).await
    }
}

/// The setting is not needed for it, and does no harm.
#[test]
fn gunicorn_is_not_blocked_by_looks() {
    istio::run("gunicorn", async |world| {
        let Some(servers) = Servers::find()? else { return Ok(()) };
        let two = Two::start(world).await?;
        servers.gunicorn(&two.world, &two.app).await?;
        for keep_alives in [true, false] {
            if !keep_alives {
                two.disable_keep_alives().await?;
                one_each(&two).await?;
            }
            for _ in 0..3 {
                two.wakes().await.with_context(|| format!("keep-alives {keep_alives}"))?;
                two.is_served().await.with_context(|| format!("keep-alives {keep_alives}"))?;
            }
        }

        // What would have been seen: a connection that nobody uses does block it.
        let unused = tokio::net::TcpStream::connect(two.direct().await?).await?;
        let mut blocked = two.send(0, "/blocked")?;
        two.sent(0).await?;
        if let Ok(answer) = tokio::time::timeout(NOTHING, &mut blocked).await {
            bail!("it was not blocked: {answer:?}");
        }
        drop(unused);
        let answer =
            tokio::time::timeout(wait::PATIENCE, blocked).await.context("it is still blocked")???;
        ensure!(answer.status == 200, "{answer:?}");
        Ok(())
    });
}

/// Waits until each gateway has the setting.
async fn one_each(two: &Two) -> Result<()> {
    for gateway in &two.gateways {
        let world = World { gateway: gateway.clone(), ..two.world.clone() };
        wait::until("connections for one request", async || {
            match cluster(&world, &two.app.cluster_name()).await {
                Ok(now) if now.to_string().contains("max_requests_per_connection") => Ok(()),
                Ok(now) => Err(now.to_string()),
                Err(error) => Err(format!("{error:#}")),
            }
        })
        .await?;
    }
    Ok(())
}

/// A gateway keeps the connection on which the app waits; the other gateway's request is not even read.
#[test]
fn a_pooled_connection_blocks_the_other_gateway_until_there_are_none() {
    istio::run("pooled", async |world| {
        let Some(servers) = Servers::find()? else { return Ok(()) };
        let two = Two::start(world).await?;
        servers.uwsgi(&two.world, &two.app, None).await?;
        two.app.scale(1).await?;
        two.app.awake().await?;
        let direct = two.direct().await?;
        wait::until("the app to listen", async || {
            http::get(direct, "/direct").await.map(drop).map_err(|error| error.to_string())
        })
        .await?;

        two.get(0, "/first").await?;
        ensure!(two.stat(0, "upstream_cx_active").await? > 0, "the first gateway keeps no connection");
        let mut blocked = two.send(1, "/blocked")?;
        two.sent(1).await?;
        if let Ok(answer) = tokio::time::timeout(NOTHING, &mut blocked).await {
            bail!("it was not blocked: {answer:?}");
        }

        two.disable_keep_alives().await?;
        let answer =
            tokio::time::timeout(wait::PATIENCE, blocked).await.context("it is still blocked")???;
        ensure!(answer.status == 200, "{answer:?}");
        one_each(&two).await?;
        two.is_served().await?;
        // Now it can be probed, and so be waited for.
        servers.uwsgi(&two.world, &two.app, Some(probe())).await?;
        two.wakes().await?;
        two.is_served().await
    });
}

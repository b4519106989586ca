//! A whole daemon in this process, with an embedded kubelet, on a machine that can be changed.

use std::fs;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ix_device_plugin::app::{self, Running};
use ix_device_plugin::daemon::inventory_owner::Trigger;
use ix_device_plugin::daemon::ixml_source::IxmlSettings;
use ix_device_plugin::decide::node::advertise::NodeSnapshot;
use ix_device_plugin::demo::kubelet::{
    Admission, EmbeddedKubelet, NodeView, PodRequest, Settings as KubeletSettings,
};
use ix_device_plugin::host::config_file::ConfigSource;
use ix_device_plugin::host::files;
use ix_device_plugin::host::kubelet::channel_over;
use ix_device_plugin::host::root::Root;
use ix_device_plugin::model::config::Config;
use ix_device_plugin::parse::config::parse_config;
use ix_device_plugin::parse::node_file::parse_node_file;
use ix_device_plugin::wire::v1beta1::device_plugin_client::DevicePluginClient;
use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tonic::transport::Channel;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::fmt::MakeWriter;

use crate::support::binary::{Ran, binary, ran};
pub(crate) use crate::support::daemon::GPU;
use crate::support::daemon::NOT_AT_ALL;

/// Longer than anything here takes; a test that waits for this has failed.
const FOR_EVER: Duration = Duration::from_secs(30);

/// Waits, but not for ever.
pub(crate) async fn within<T>(what: &str, waiting: impl Future<Output = T>) -> T {
    let waited = tokio::time::timeout(FOR_EVER, waiting).await;
    waited.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// The text of a shipped machine.
pub(crate) fn node_text(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fixtures/nodes/{name}.node"));
    fs::read_to_string(path).unwrap()
}

/// What is called for when the daemon starts.
pub(crate) struct Script {
    pub(crate) config: Config,
    pub(crate) source: Option<ConfigSource>,
    pub(crate) inotify: bool,
    /// How libixml is asked; not at all where absent.
    pub(crate) ixml: Option<IxmlSettings>,
    /// Where it answers over HTTP; not at all where absent.
    pub(crate) http: Option<SocketAddr>,
}

impl Script {
    /// This configuration, which does not change.
    pub(crate) fn fixed(yaml: &str) -> Self {
        let config = parse_config(yaml).unwrap();
        Self { config, source: None, inotify: true, ixml: None, http: None }
    }

    /// The configuration of `source`, followed.
    pub(crate) fn followed(source: &ConfigSource, inotify: bool) -> Self {
        let config = source.load().unwrap();
        Self { config, source: Some(source.clone()), inotify, ixml: None, http: None }
    }

    /// The same, and it answers over HTTP at a port of its own.
    pub(crate) fn over_http(self) -> Self {
        Self { http: Some(ANY_PORT), ..self }
    }
}

/// The kernel chooses the port.
pub(crate) const ANY_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A node: machine, kubelet, log, and the daemon while it runs.
pub(crate) struct Stage {
    pub(crate) kubelet: EmbeddedKubelet,
    pub(crate) log: Log,
    root: Arc<Root>,
    directory: TempDir,
    bound: Option<Running>,
}

impl Stage {
    /// A machine from the text of a `.node` file, and a kubelet that knows of nothing.
    pub(crate) async fn set(node: &str) -> Self {
        let log = Log::capture();
        let directory = TempDir::new().unwrap();
        let kubelet =
            EmbeddedKubelet::start(directory.path(), KubeletSettings::default()).await.unwrap();
        let root = Arc::new(Root::unpack(&parse_node_file(node).unwrap()).unwrap());
        Self { kubelet, log, root, directory, bound: None }
    }

    /// Machine, kubelet, and a daemon whose resource the kubelet has.
    pub(crate) async fn play(node: &str, script: Script) -> Self {
        let mut stage = Self::set(node).await;
        let resource = script.config.resources[0].name.clone();
        stage.start(script);
        stage.until(&format!("a stream of {resource}"), |view| is_streaming(view, &resource)).await;
        stage
    }

    pub(crate) fn start(&mut self, script: Script) {
        let Script { config, source, inotify, ixml, http } = script;
        self.bound = Some(app::build(app::Settings {
            root: Arc::clone(&self.root),
            config,
            config_source: source,
            kubelet_directory: self.directory.path().to_owned(),
            pod_resources_socket: None,
            retention: NOT_AT_ALL,
            ixml,
            http,
            inotify,
            uevents: false,
        }));
    }

    /// Ends the daemon's tasks wherever they are, as a kill does.
    pub(crate) fn kill(&mut self) {
        drop(self.bound.take());
    }

    pub(crate) async fn stop(&mut self) {
        let bound = self.bound.take().unwrap();
        within("the end", bound.run_until_stopped(std::future::ready(()))).await.unwrap();
    }

    /// Another daemon in place of one that was stopped or killed; waits until it has the stream.
    pub(crate) async fn start_again(&mut self, script: Script) {
        let lists = |view: &NodeView| view.resources.get(GPU).map_or(0, |it| it.lists_received);
        let before = lists(&self.kubelet.view().borrow());
        self.start(script);
        self.until("the next stream", |view| is_streaming(view, GPU) && lists(view) > before).await;
    }

    pub(crate) fn bound(&self) -> &Running {
        self.bound.as_ref().unwrap()
    }

    /// The directory that stands for `/`.
    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    /// A file in the kubelet's device plugin directory.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Makes the machine another one and waits until the daemon has seen what is `wanted`.
    pub(crate) async fn change(
        &mut self,
        node: &str,
        mut wanted: impl FnMut(&NodeSnapshot) -> bool,
    ) {
        for part in ["sys", "dev"] {
            files::remove(&self.root.path().join(part)).unwrap();
        }
        files::unpack(&parse_node_file(node).unwrap(), self.root.path()).unwrap();
        let Some(bound) = &mut self.bound else { return };
        bound.triggers.send(Trigger::Request).await.unwrap();
        let seen =
            bound.snapshots.wait_for(|snapshot| snapshot.as_deref().is_some_and(&mut wanted));
        within("the change", seen).await.unwrap();
    }

    /// Waits until the node looks as `wanted`.
    pub(crate) async fn until(
        &self,
        what: &str,
        wanted: impl FnMut(&NodeView) -> bool,
    ) -> NodeView {
        within(what, self.kubelet.wait_for(wanted)).await.unwrap()
    }

    pub(crate) async fn admit(&self, pod: &str, resource: &str, count: usize) -> Admission {
        let pod = PodRequest::single(pod, resource, count);
        within("an admission", self.kubelet.admit(pod)).await.unwrap()
    }

    /// A client of the plugin's own, as a kubelet has one.
    pub(crate) async fn client(&self, socket: &str) -> DevicePluginClient<Channel> {
        let stream = UnixStream::connect(self.file(socket)).await.unwrap();
        DevicePluginClient::new(channel_over(stream).await.unwrap())
    }

    /// Starts the container `main`; the refusal as the kubelet words it.
    pub(crate) async fn start_pod(&self, pod: &str) -> Result<Vec<String>, String> {
        let started = within("a start", self.kubelet.start_container(pod, "main")).await;
        let nodes = |device: ix_device_plugin::wire::v1beta1::DeviceSpec| device.host_path;
        started
            .map(|injection| injection.devices.into_iter().map(nodes).collect())
            .map_err(|error| error.to_string())
    }
}

pub(crate) fn is_streaming(view: &NodeView, resource: &str) -> bool {
    view.resources.get(resource).is_some_and(|it| it.registered && it.streams_open > 0)
        && view.capacity(resource) > 0
}

/// The ids of the only container.
pub(crate) fn ids(admission: &Admission, resource: &str) -> Vec<String> {
    admission.containers[0].devices[resource].clone()
}

/// Runs the built binary with these arguments and variables, and nothing of the caller's
/// environment: exit code, standard output, standard error.
pub(crate) fn run(arguments: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let output = binary().args(arguments).envs(variables.iter().copied()).output().unwrap();
    let Ran { code, stdout, stderr } = ran(&output);
    (code, stdout, stderr)
}

/// Sees to it that no line is left out because, for a moment, no thread listens: what a line is worth
/// is remembered for all threads together.
fn somebody_listens() {
    static LISTENER: std::sync::Once = std::sync::Once::new();
    LISTENER.call_once(|| {
        let listener = tracing_subscriber::fmt().with_writer(io::sink).finish();
        tracing::subscriber::set_global_default(listener).unwrap();
    });
}

/// Log lines of this thread, which is all of a test, from `info` on.
pub(crate) struct Log {
    lines: Lines,
    _while_it_lives: DefaultGuard,
}

#[derive(Clone)]
struct Lines(Arc<watch::Sender<String>>);

impl Log {
    pub(crate) fn capture() -> Self {
        somebody_listens();
        let lines = Lines(Arc::new(watch::Sender::new(String::new())));
        let subscriber = tracing_subscriber::fmt()
            .with_writer(lines.clone())
            .without_time()
            .with_ansi(false)
            .with_target(false)
            .finish();
        Self { lines, _while_it_lives: tracing::subscriber::set_default(subscriber) }
    }

    /// Every line of this level so far.
    pub(crate) fn lines(&self, level: &str) -> Vec<String> {
        let text = self.lines.0.borrow();
        let lines = text.lines().map(str::trim_start);
        lines
            .filter_map(|line| line.strip_prefix(level))
            .map(|line| line.trim().to_owned())
            .collect()
    }

    /// Waits until a part of the log reads like this.
    pub(crate) async fn says(&self, part: &str) {
        let mut text = self.lines.0.subscribe();
        let said = tokio::time::timeout(FOR_EVER, text.wait_for(|text| text.contains(part))).await;
        let said = said.map(drop);
        assert!(said.is_ok(), "{part}\nis not in the log:\n{}", *self.lines.0.borrow());
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send_modify(|text| text.push_str(&String::from_utf8_lossy(bytes)));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

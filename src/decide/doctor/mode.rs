//! The mode of the plugin: only one serves a node, and DRA mode needs the kubelet's directory of
//! drivers and a runtime that knows CDI.

use super::kubelet::{DirectoryState, directory_state};
use super::{and, findings_on};
use crate::model::config::ServingMode;
use crate::model::doctor::facts::{
    DroppedFeature, NodeFacts, Observed, PluginDirectory, RootFacts, RunningDriver, RuntimeFile,
    SocketFile, SocketState,
};
use crate::model::doctor::finding::Finding;
use crate::model::dra::DRIVER_NAME;

/// The start of the names of the device plugin's sockets.
const DEVICE_PLUGIN: &str = "iluvatar-gpu";

pub(super) fn mode(facts: &NodeFacts) -> Vec<Finding> {
    let NodeFacts { root, kubelet, config, driver, .. } = facts;
    // A flag may have set the mode of the plugin that runs.
    let mode = if matches!(driver, Ok(Some(_))) { ServingMode::Dra } else { config.mode };
    let (other, of_other) = match mode {
        ServingMode::DevicePlugin => (&kubelet.registry, DRIVER_NAME),
        ServingMode::Dra => (&kubelet.directory, DEVICE_PLUGIN),
    };
    let mut findings = match live_sockets(other, of_other, root) {
        Ok(live) => both_modes(mode, &live).into_iter().collect(),
        Err(why) => vec![Finding::skipped(why.0)],
    };
    if mode == ServingMode::Dra {
        findings.extend(registry(&kubelet.registry, root));
        findings.extend(facts.runtimes.iter().filter_map(without_cdi));
        findings.extend(findings_on(driver.clone(), |driver| {
            driver.iter().flat_map(running).collect()
        }));
    }
    super::or_ok(findings, || match mode {
        ServingMode::DevicePlugin => "device-plugin; the DRA driver does not run here".to_owned(),
        ServingMode::Dra => "dra; the device plugin does not run here".to_owned(),
    })
}

/// Sockets of the other mode at which a process listens.
fn live_sockets(
    directory: &PluginDirectory,
    prefix: &str,
    root: &RootFacts,
) -> Observed<Vec<String>> {
    let DirectoryState::Listed { sockets, .. } = directory_state(directory, root)? else {
        return Ok(Vec::new());
    };
    let is_live = |socket: &&SocketFile| {
        socket.name.starts_with(prefix) && socket.state == SocketState::Accepts
    };
    let path = |socket: &SocketFile| format!("{}/{}", directory.path, socket.name);
    Ok(sockets?.iter().filter(is_live).map(path).collect())
}

fn both_modes(mode: ServingMode, live: &[String]) -> Option<Finding> {
    let (active, other) = match mode {
        ServingMode::DevicePlugin => ("device-plugin", "dra"),
        ServingMode::Dra => ("dra", "device-plugin"),
    };
    let sentence = format!(
        "this is mode {active}, but mode {other} serves this node too, at {}: each would allocate \
         GPUs that the other has allocated",
        and(live)
    );
    let remedy = "let one DaemonSet alone select the node; the README describes how a node changes \
                  its mode";
    (!live.is_empty()).then(|| Finding::failure(sentence, remedy))
}

fn registry(directory: &PluginDirectory, root: &RootFacts) -> Vec<Finding> {
    let path = &directory.path;
    findings_on(directory_state(directory, root), |state| match state {
        DirectoryState::Listed { .. } => Vec::new(),
        DirectoryState::Absent => vec![Finding::failure(
            format!("{path} does not exist, and the kubelet finds DRA drivers there"),
            "mount the kubelet's plugins_registry at the same path; where the kubelet has another \
             root directory, it is below that",
        )],
    })
}

/// Only by CDI names does a container get what its claim has.
fn without_cdi(file: &RuntimeFile) -> Option<Finding> {
    let settings = file.settings.as_ref().ok()?;
    (settings.cdi == Some(false)).then(|| {
        Finding::failure(
            format!(
                "{} of {} disables CDI, but containers get devices of claims only by CDI names",
                file.path, file.owner
            ),
            format!("set `enable_cdi = true` there and restart {}", file.owner),
        )
    })
}

/// What the running driver reports of the kubelet and the API server.
fn running(driver: &RunningDriver) -> Vec<Finding> {
    let RunningDriver { dropped, api_server_error, registration_error } = driver;
    let registration = registration_error.iter().map(|error| {
        let remedy = "look for RegistrationFailed in the plugin's log, and at the kubelet's log";
        Finding::warning(format!("the kubelet does not accept the driver: {error}"), remedy)
    });
    let api_server = api_server_error.iter().map(|error| {
        let remedy = "check the network to the API server, and the ClusterRole and the admission \
                      policy of the plugin's service account";
        Finding::warning(format!("the driver cannot use the API server: {error}"), remedy)
    });
    registration.chain(api_server).chain(dropped.iter().map(without_feature)).collect()
}

fn without_feature(dropped: &DroppedFeature) -> Finding {
    let DroppedFeature { name, gate, fallback } = dropped;
    Finding::warning(
        format!("the API server drops {name} from slices: {fallback}"),
        format!(
            "switch the feature gate {gate} on in the control plane, or use Kubernetes 1.36, where \
             it is on; then restart the plugin"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::super::sample_facts::{kubelet, node, shown};
    use super::*;
    use crate::model::config::Config;
    use crate::model::doctor::facts::{
        ConfigurationFile, ConfigurationState, DeviceLinks, Engine, InotifyFacts,
        PluginDirectoryContent, RuntimeSettings, Unavailable,
    };

    fn listed(sockets: &[(&str, SocketState)]) -> PluginDirectoryContent {
        let sockets = sockets
            .iter()
            .map(|(name, state)| SocketFile { name: (*name).to_owned(), state: state.clone() });
        PluginDirectoryContent::Listed { sockets: sockets.collect(), checkpoint: None }
    }

    fn facts(
        mode: ServingMode,
        plugins: PluginDirectoryContent,
        registry: PluginDirectoryContent,
    ) -> NodeFacts {
        let mut kubelet = kubelet(plugins);
        kubelet.registry.content = registry;
        NodeFacts {
            root: node(),
            configuration: ConfigurationFile {
                path: "/c".to_owned(),
                state: ConfigurationState::Absent,
            },
            config: Config { mode, ..Config::default() },
            hardware: Err("no".to_owned()),
            device_links: DeviceLinks::default(),
            kubelet,
            cdi: Vec::new(),
            toolkit_directories: Vec::new(),
            runtimes: Vec::new(),
            uevents: None,
            inotify: InotifyFacts { instances: None, watches: None, opened: None },
            driver: Ok(None),
        }
    }

    #[test]
    fn two_modes_on_one_node_are_a_failure_in_both() {
        use SocketState::{Accepts, Refuses};
        let driver = [("gpu.iluvatar.com-reg.sock", Accepts), ("dra.net-reg.sock", Accepts)];
        let found = mode(&facts(ServingMode::DevicePlugin, listed(&[]), listed(&driver)));
        assert_eq!(
            shown(&found),
            ["failure: this is mode device-plugin, but mode dra serves this node too, at \
              /r/gpu.iluvatar.com-reg.sock: each would allocate GPUs that the other has allocated \
              -> let one DaemonSet alone select the node; the README describes how a node changes \
              its mode"]
        );
        let plugin = [("iluvatar-gpu.sock", Accepts), ("kubelet.sock", Accepts)];
        let found = mode(&facts(ServingMode::Dra, listed(&plugin), listed(&driver)));
        assert!(shown(&found)[0].contains("mode device-plugin serves this node too, at /k/"));
        // What an ended one left behind does no harm.
        let ended = listed(&[("iluvatar-gpu.sock", Refuses)]);
        let found = mode(&facts(ServingMode::Dra, ended, listed(&driver)));
        assert_eq!(shown(&found), ["ok: dra; the device plugin does not run here"]);
        let found = mode(&facts(ServingMode::DevicePlugin, listed(&plugin), listed(&[])));
        assert_eq!(shown(&found), ["ok: device-plugin; the DRA driver does not run here"]);
    }

    #[test]
    fn dra_mode_needs_the_directory_of_drivers_and_cdi() {
        let mut facts = facts(ServingMode::Dra, listed(&[]), PluginDirectoryContent::Absent);
        let settings = RuntimeSettings { cdi: Some(false), ..RuntimeSettings::default() };
        facts.runtimes = vec![RuntimeFile {
            owner: "containerd",
            engine: Engine::Containerd,
            path: "/c.toml".to_owned(),
            settings: Ok(settings),
        }];
        assert_eq!(
            shown(&mode(&facts)),
            [
                "failure: /r does not exist, and the kubelet finds DRA drivers there -> mount the \
                 kubelet's plugins_registry at the same path; where the kubelet has another root \
                 directory, it is below that",
                "failure: /c.toml of containerd disables CDI, but containers get devices of claims \
                 only by CDI names -> set `enable_cdi = true` there and restart containerd",
            ]
        );
        facts.config.mode = ServingMode::DevicePlugin;
        assert_eq!(shown(&mode(&facts)), ["ok: device-plugin; the DRA driver does not run here"]);
    }
    #[test]
    fn the_plugin_that_runs_says_what_the_api_server_drops_and_which_mode_it_is_in() {
        use SocketState::Accepts;
        let driver = listed(&[("gpu.iluvatar.com-reg.sock", Accepts)]);
        let mut facts = facts(ServingMode::DevicePlugin, listed(&[]), driver);
        facts.driver = Ok(Some(RunningDriver::default()));
        assert_eq!(shown(&mode(&facts)), ["ok: dra; the device plugin does not run here"]);
        facts.driver = Ok(Some(RunningDriver {
            dropped: vec![DroppedFeature {
                name: "taints".to_owned(),
                gate: "DRADeviceTaints".to_owned(),
                fallback: "unhealthy devices leave".to_owned(),
            }],
            api_server_error: Some("403".to_owned()),
            registration_error: Some("no".to_owned()),
        }));
        assert_eq!(
            shown(&mode(&facts)),
            [
                "warning: the kubelet does not accept the driver: no -> look for \
                 RegistrationFailed in the plugin's log, and at the kubelet's log",
                "warning: the driver cannot use the API server: 403 -> check the network to the \
                 API server, and the ClusterRole and the admission policy of the plugin's service \
                 account",
                "warning: the API server drops taints from slices: unhealthy devices leave -> \
                 switch the feature gate DRADeviceTaints on in the control plane, or use \
                 Kubernetes 1.36, where it is on; then restart the plugin",
            ]
        );
        (facts.config.mode, facts.driver) = (ServingMode::Dra, Err(Unavailable("no".to_owned())));
        assert_eq!(shown(&mode(&facts)), ["skipped: no"]);
    }
}

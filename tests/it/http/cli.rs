//! `probe` and `status`: the built program asks the built program.

use ix_device_plugin::demo::kubelet::RegisterBehaviour;

use crate::support::binary::{Ran, run};
use crate::support::fixtures::GPU;
use crate::support::node_rig::NodeRig;
use crate::support::process::PluginProcess;
use crate::support::test_node::{ONLY_EVENTS, TestNode};

/// A node, its daemon, and where that answers.
pub(crate) async fn answering() -> (NodeRig, PluginProcess, String) {
    let node = TestNode::fixture("mr-v100-x4").config(ONLY_EVENTS).prepare().await;
    let daemon = node.start_process();
    let address = daemon.address().await.to_string();
    (node, daemon, address)
}

fn check(arguments: &[&str], code: i32, stdout: &str, stderr: &str) {
    let expected = Ran { code: Some(code), stdout: stdout.to_owned(), stderr: stderr.to_owned() };
    assert_eq!(run(arguments), expected, "{arguments:?}");
}

#[tokio::test]
async fn probes_print_what_the_plugin_answers_and_exit_with_it() {
    let (node, daemon, address) = answering().await;
    daemon.counts("open_streams", "", 1).await;
    let ready = "ready\niluvatar.com/gpu: the kubelet has its list\n";
    check(&["probe", "ready", "--http", &address], 0, ready, "");
    let live = "live\nthe inventory loop is making progress\n";
    check(&["probe", "live", "--http", &address], 0, live, "");
    // Where the plugin listens everywhere, its probes have the same address.
    let everywhere = address.replace("127.0.0.1", "0.0.0.0");
    check(&["probe", "live", "--http", &everywhere], 0, live, "");

    let refuse = RegisterBehaviour::Refuse("not today".to_owned());
    node.kubelet.set_register_behaviour(refuse).await.unwrap();
    node.kubelet.drop_stream(GPU).await.unwrap();
    daemon.shows("/readyz", "the kubelet refused").await;
    let missing = "error: not ready\niluvatar.com/gpu: not registered with the kubelet: cannot \
                   register: the kubelet refused: not today; trying again\n";
    check(&["probe", "ready", "--http", &address], 1, "", missing);
    check(&["probe", "live", "--http", &address], 0, live, "");
}

#[tokio::test]
async fn status_is_a_table_for_people_and_json_for_scripts() {
    let (_node, daemon, address) = answering().await;
    daemon.counts("open_streams", "", 1).await;
    let Ran { code, stdout, stderr } = run(&["status", "--http", &address]);
    assert_eq!((code, &*stderr), (Some(0), ""));
    assert!(stdout.starts_with("ix-device-plugin ") && stdout.contains(", ready\n"), "{stdout}");
    for device in ["0000:15:00.0", "0000:2d:00.0", "0000:95:00.0", "0000:ad:00.0"] {
        let row = format!("\n{device}  iluvatar.com/gpu  Healthy  ");
        assert!(stdout.contains(&row), "{stdout}");
    }
    assert!(!stdout.contains('\x1b'));
    let Ran { code, stdout, .. } = run(&["status", "-o", "json", "--http", &address]);
    let document: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &document["ready"]), (Some(0), &serde_json::Value::Bool(true)));
}

#[test]
fn where_nobody_answers_they_name_what_to_check() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let address = free.to_string();
    let nobody = format!(
        "error: cannot connect to {address}: Connection refused (os error 111); does the plugin \
         run, and does its --http name this address?\n"
    );
    check(&["probe", "live", "--http", &address], 1, "", &nobody);
    check(&["probe", "ready", "--http", &address], 1, "", &nobody);
    check(&["status", "--http", &address], 1, "", &nobody);
    let off = "error: --http (IX_HTTP) is off: there is no server to ask; give the address \
               of the running plugin\n";
    check(&["status", "--http", "off"], 1, "", off);
}

#[test]
fn who_takes_the_call_and_is_no_plugin_is_named() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let silent = format!("error: {address} did not answer within 2s\n");
    check(&["probe", "ready", "--http", &address], 1, "", &silent);
}

#[test]
fn an_address_is_an_ip_address_with_a_port_or_off() {
    for wrong in ["9476", "localhost:9476", "0.0.0.0", "on", ""] {
        let Ran { code, stderr, .. } = run(&["probe", "live", &format!("--http={wrong}")]);
        assert_eq!(code, Some(2), "{wrong}");
        assert!(stderr.contains("or off") || wrong.is_empty(), "{stderr}");
    }
}

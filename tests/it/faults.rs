//! The session's invariant, in the large: whatever befalls it, in whatever order, the kubelet has
//! our list again after the last fault, over real sockets and real directories. How soon is held by
//! the session machine's own tests, in simulated time.

use std::cell::RefCell;
use std::fs;
use std::io;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use ix_device_plugin::demo::kubelet::{
    KubeletError, KubeletSettings, OwnSocket, RegisterBehaviour,
};
use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestRunner};
use tokio::runtime::Runtime;

use crate::support::clock::LIVENESS_LIMIT;
use crate::support::fixtures::GPU;
use crate::support::node_rig::NodeRig;
use crate::support::plugin_client::try_lists as lists;
use crate::support::test_node::TestNode;

/// What goes wrong, and is in order again at the end of its time.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// All sockets are wiped at its end.
    KubeletAway(OwnSocket),
    KubeletRestarts,
    /// As a restart, while somebody removes the directory too.
    DirectoryAway,
    /// Nothing can be bound: as a full disk, a file stands where the directory was.
    DirectoryIsAFile,
    /// Another directory comes to be in place of the watched one.
    DirectoryReplaced,
    RegisterRefused,
    /// Calls that wait are answered after this many milliseconds; nothing can hasten them.
    RegisterSlow(u64),
    /// Ends with the kubelet's process, as a hang does.
    RegisterHangs,
    StreamDropped,
    /// By a client that does not read.
    StreamOfAnotherClient,
    OurSocketDeleted,
    OurSocketDead,
    /// Another process listens in our place, and its socket goes with it, or stays and refuses.
    OurSocketTaken {
        is_left: bool,
    },
    /// Nothing can be put in our place.
    OurSocketIsADirectory,
    /// A newer instance comes and goes again.
    AnotherInstance,
    BoardUnplugged,
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        Just(Fault::KubeletAway(OwnSocket::Removed)),
        Just(Fault::KubeletAway(OwnSocket::LeftBehind)),
        Just(Fault::KubeletRestarts),
        Just(Fault::DirectoryAway),
        Just(Fault::DirectoryIsAFile),
        Just(Fault::DirectoryReplaced),
        Just(Fault::RegisterRefused),
        (0..60_u64).prop_map(Fault::RegisterSlow),
        Just(Fault::RegisterHangs),
        Just(Fault::StreamDropped),
        Just(Fault::StreamOfAnotherClient),
        Just(Fault::OurSocketDeleted),
        Just(Fault::OurSocketDead),
        any::<bool>().prop_map(|is_left| Fault::OurSocketTaken { is_left }),
        Just(Fault::OurSocketIsADirectory),
        Just(Fault::AnotherInstance),
        Just(Fault::BoardUnplugged),
    ]
}

/// A fault, how long it lasts, and how long all is well afterwards, in milliseconds.
type Lasting = (Fault, u64, u64);

#[derive(Clone, Debug)]
struct Story {
    takeover_bug: bool,
    inotify: bool,
    faults: Vec<Lasting>,
}

fn story() -> impl Strategy<Value = Story> {
    // Mostly shorter than a registration takes, sometimes longer than any wait of ours.
    let lasts = || prop_oneof![9 => 0..15_u64, 1 => 15..700_u64];
    let faults = prop::collection::vec((fault(), lasts(), lasts()), 1..=8);
    (any::<bool>(), any::<bool>(), faults).prop_map(|(takeover_bug, inotify, faults)| Story {
        takeover_bug,
        inotify,
        faults,
    })
}

/// Somebody else's file where ours should be may already be gone, with the directory.
fn unless_absent(result: io::Result<()>) {
    if let Err(error) = result {
        assert_eq!(error.kind(), io::ErrorKind::NotFound, "{error}");
    }
}

/// A node that faults happen to.
struct FaultyNode(NodeRig);

impl FaultyNode {
    async fn suffer(&self, (fault, lasts, calm): Lasting) -> Result<(), KubeletError> {
        let pause = tokio::time::sleep(Duration::from_millis(lasts));
        match fault {
            Fault::KubeletAway(socket) => {
                self.0.kubelet.stop(socket).await?;
                pause.await;
                self.0.kubelet.restart().await?;
            }
            Fault::KubeletRestarts => self.0.kubelet.restart().await?,
            Fault::DirectoryAway => {
                self.0.kubelet.stop(OwnSocket::LeftBehind).await?;
                self.remove_directory();
                pause.await;
                self.0.kubelet.restart().await?;
            }
            Fault::DirectoryIsAFile => {
                self.0.kubelet.stop(OwnSocket::LeftBehind).await?;
                self.remove_directory();
                fs::write(self.0.kubelet_directory(), "in the way")?;
                pause.await;
                fs::remove_file(self.0.kubelet_directory())?;
                self.0.kubelet.restart().await?;
            }
            Fault::DirectoryReplaced => {
                self.0.kubelet.stop(OwnSocket::LeftBehind).await?;
                let old = tempfile::tempdir()?;
                fs::rename(self.0.kubelet_directory(), old.path().join("old"))?;
                self.0.kubelet.restart().await?;
            }
            Fault::RegisterRefused => {
                self.register(RegisterBehaviour::Refuse("not today".to_owned())).await?;
                pause.await;
                self.register(RegisterBehaviour::Accept).await?;
            }
            Fault::RegisterSlow(delay) => {
                let delay = Duration::from_millis(delay);
                self.register(RegisterBehaviour::Delay(delay)).await?;
                pause.await;
                self.register(RegisterBehaviour::Accept).await?;
                tokio::time::sleep(delay).await;
            }
            Fault::RegisterHangs => {
                self.register(RegisterBehaviour::Hang).await?;
                pause.await;
                self.register(RegisterBehaviour::Accept).await?;
                self.0.kubelet.restart().await?;
            }
            Fault::StreamDropped => self.0.kubelet.drop_stream(GPU).await?,
            Fault::StreamOfAnotherClient => {
                let limit = Duration::from_millis(lasts);
                let socket = self.0.socket();
                let _unread = tokio::time::timeout(limit, lists(&socket)).await;
                pause.await;
            }
            Fault::OurSocketDeleted => unless_absent(fs::remove_file(self.0.socket())),
            Fault::OurSocketDead => drop(self.take_place()?),
            Fault::OurSocketTaken { is_left } => {
                let listener = self.take_place()?;
                pause.await;
                drop(listener);
                if !is_left {
                    unless_absent(fs::remove_file(self.0.socket()));
                }
            }
            Fault::OurSocketIsADirectory => {
                unless_absent(fs::remove_file(self.0.socket()));
                if fs::create_dir(self.0.socket()).is_ok() {
                    pause.await;
                    fs::remove_dir(self.0.socket())?;
                }
            }
            Fault::AnotherInstance => {
                let newer = self.0.another_plugin();
                pause.await;
                newer.stop().await.expect("a newer instance ends quietly");
            }
            Fault::BoardUnplugged => {
                let board = self.0.plugin().last_board().await;
                self.0.unplug(&board).await;
                pause.await;
                self.0.replug(&board).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(calm)).await;
        Ok(())
    }

    async fn register(&self, behaviour: RegisterBehaviour) -> Result<(), KubeletError> {
        Ok(self.0.kubelet.set_register_behaviour(behaviour).await?)
    }

    /// The daemon may put its socket into it at any moment: tried until nobody did.
    fn remove_directory(&self) {
        while fs::remove_dir_all(self.0.kubelet_directory()).is_err() {}
    }

    fn take_place(&self) -> io::Result<UnixListener> {
        let other = self.0.kubelet_directory().join("other.sock");
        unless_absent(fs::remove_file(&other));
        let listener = UnixListener::bind(&other)?;
        fs::rename(&other, self.0.socket())?;
        Ok(listener)
    }
}

async fn hold(story: Story, node: TestNode) -> Result<(), String> {
    let settings =
        KubeletSettings { takeover_bug: story.takeover_bug, ..KubeletSettings::default() };
    let node = node.kubelet(settings);
    let node = if story.inotify { node } else { node.without_inotify() };
    let mut node = FaultyNode(node.prepare().await);
    node.0.start_plugin();
    node.0.plugin().snapshot().await;
    let last = story.faults.len() - 1;
    for (index, (fault, lasts, calm)) in story.faults.into_iter().enumerate() {
        let calm = if index == last { 0 } else { calm };
        node.suffer((fault, lasts, calm)).await.map_err(|error| error.to_string())?;
    }
    node.0.recovers_within(LIVENESS_LIMIT, node.0.plugin()).await?;
    node.0.stop().await;
    Ok(())
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

const STORIES: u32 = 1024;
/// Most of a story is waiting, so that many fit on few processors.
const AT_ONCE: u32 = 64;

/// Plays its share of the stories, one after the other, on one machine, which each leaves whole.
fn play() {
    let share = ProptestConfig {
        failure_persistence: None,
        max_shrink_iters: 64,
        ..ProptestConfig::with_cases(STORIES / AT_ONCE)
    };
    let (runtime, whole) = (runtime(), RefCell::new(None));
    let held = TestRunner::new(share).run(&story(), |story| {
        // A story that failed may have left its machine without a board.
        let node = whole.take().unwrap_or_else(|| TestNode::fixture("mr-v100-x4"));
        runtime.block_on(hold(story, node.clone())).map_err(TestCaseError::fail)?;
        whole.replace(Some(node));
        Ok(())
    });
    held.unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn after_the_last_of_any_faults_the_kubelet_has_our_list_again() {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(play)).collect();
        let failed = threads.into_iter().filter_map(|thread| thread.join().err()).count();
        assert_eq!(failed, 0, "threads failed; their stories are above");
    });
}

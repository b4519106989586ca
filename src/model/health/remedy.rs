//! What to do about each reason, for operators.

use super::ReasonCode;

const REBUILD_BOARD: &str = "bind all chips of the board to one driver; if a chip is not on the \
                             bus, `echo 1 > /sys/bus/pci/rescan`, then reset or reseat the board; \
                             if the board never had more chips, correct boards.chipsPerBoard or \
                             boards.pairs";
const BIND: &str =
    "find the cause in `dmesg`, then `echo ADDRESS > /sys/bus/pci/drivers/iluvatar/bind`";
const PAIR_NODES: &str = "bind every chip, or reload the driver: where /sys does not announce \
                          nodes, they are paired with chips only if every chip is bound and there \
                          are as many nodes as chips";
const MAKE_NODE: &str = "`udevadm trigger --action=add --subsystem-match=iluvatar-sys`, or reload \
                         the driver; in a container, mount the node's /dev";
const POWER_CYCLE: &str =
    "reset or power-cycle the node, and find the cause in `dmesg` (AER, power, heat)";
const RESEAT_AFTER_FATAL: &str =
    "find the error in `dmesg` (AER); if it returns, reseat or replace the board";
const RESEAT: &str =
    "find the errors in `dmesg` (AER); if more come, reseat the board and check its slot";
const AWAIT_RECOVERY: &str = "nothing while the kernel recovers it; if recovery fails, reset or \
                              power-cycle the node, and find the error in `dmesg` (AER)";
const CHECK_LINK: &str = "check again under load, for an idle link may be slow; if it stays slow, \
                          reseat the board and check the slot's width and the firmware settings";
const DRAIN: &str = "drain the node, reset or power-cycle it, and find the cause in `dmesg`";
const RESET: &str = "stop the pods on the chip, then `ixsmi -r -i UUID` or restart the node";
const RESET_OR_REPLACE: &str =
    "stop the pods on the chip, then `ixsmi -r -i UUID`; if it returns, replace the board";
const COOL: &str = "check fans, air flow and filters; `ixsmi` shows the temperature";
const CHECK_POWER: &str = "check the power supply and the board's power cables";
const ASK_VENDOR: &str =
    "ask the vendor what the bit means; health.signals.IxmlUnknownBit sets how it counts";
const PLAN_REPLACEMENT: &str = "if the counter keeps rising, plan to replace the board";
const CHECK_DRIVER: &str =
    "if it lasts, find the cause in `dmesg` and check with `ixsmi` that the driver answers";
const WAIT_FOR_POD: &str =
    "nothing: it is healthy again once that pod ends; delete the pod if it must be sooner";
const WRITE_IDENTITIES: &str = "add the chip to the file of discovery.identities, which `ixsmi \
                                --query-gpu=index,uuid,pci.bus_id --format=csv` prints; or set \
                                container.visibleDevices to another value";
const RETURN_BOARD: &str = "nothing, if the board was taken out: it leaves the list once no pod \
                            holds it; else `echo 1 > /sys/bus/pci/rescan`";
const UNCORDON: &str = "`ix-device-plugin uncordon ID` once it may be allocated again; \
                        `cordon --list` shows the ids";

impl ReasonCode {
    /// What an operator can do: one sentence without a full stop, with the commands and files to
    /// use.
    #[must_use]
    pub fn remedy(self) -> &'static str {
        match self {
            Self::ChipMissing => REBUILD_BOARD,
            Self::DriverNotBound => BIND,
            Self::DeviceNodeUnknown => PAIR_NODES,
            Self::DeviceNodeMissing => MAKE_NODE,
            Self::ConfigSpaceUnreadable => POWER_CYCLE,
            Self::AerFatal => RESEAT_AFTER_FATAL,
            Self::AerNonFatal | Self::IxmlPcie => RESEAT,
            Self::PcieErrorRecovery => AWAIT_RECOVERY,
            Self::LinkBelowMaximum => CHECK_LINK,
            Self::IxmlGpuLost => DRAIN,
            Self::IxmlResetRequired => RESET,
            Self::IxmlSyshub
            | Self::IxmlMemoryController
            | Self::IxmlEcc
            | Self::IxmlMemory
            | Self::IxmlEccUncorrected => RESET_OR_REPLACE,
            Self::IxmlOverTemperature => COOL,
            Self::IxmlOverVoltage => CHECK_POWER,
            Self::IxmlUnknownBit => ASK_VENDOR,
            Self::IxmlEccCorrected => PLAN_REPLACEMENT,
            Self::IxmlCallFailed => CHECK_DRIVER,
            Self::UuidUnknown => WRITE_IDENTITIES,
            Self::Removed => RETURN_BOARD,
            Self::HeldByPod | Self::HeldByClaim => WAIT_FOR_POD,
            Self::Cordoned => UNCORDON,
        }
    }
}

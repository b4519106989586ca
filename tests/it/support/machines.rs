//! Whole machines from a plan: sockets, root buses, switches, boards, chips, and what the driver
//! shows of them, laid out as the kernel lays out /sys.

use ix_device_plugin::model::machine::{DeviceNumber, Entry, Machine};
use ix_device_plugin::model::pci::{PciAddress, RootBus};

const MAJOR: u32 = 508;
const CHIP_CLASS: &str = "0x120000";
const PORT_CLASS: &str = "0x060400";

/// A machine to be made.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) root_buses: Vec<RootBusPlan>,
    /// Where the driver shows which node is whose.
    pub(crate) nodes: NodesPlan,
    /// Distance of two minors; more than 1 leaves holes.
    pub(crate) minor_step: u32,
    /// Whether /dev/itrctl is there.
    pub(crate) control_node: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NodesPlan {
    Child,
    Class,
    Nowhere,
}

/// A root bus with room for 0x30 buses below.
#[derive(Clone, Debug)]
pub(crate) struct RootBusPlan {
    pub(crate) domain: u32,
    pub(crate) first_bus: u8,
    pub(crate) numa: NumaPlan,
    pub(crate) above: Above,
    pub(crate) cards: Vec<CardPlan>,
}

/// Which attribute tells the NUMA node; the others say -1.
#[derive(Clone, Copy, Debug)]
pub(crate) enum NumaPlan {
    Chips(u32),
    Ports(u32),
    Nothing,
}

/// What stands between the root bus and its cards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Above {
    /// A root port for each card.
    RootPorts,
    /// One root port and one switch.
    Switch,
    /// Nothing, as in a guest; boards of two chips then have no port of their own either.
    Nothing,
}

#[derive(Clone, Debug)]
pub(crate) struct CardPlan {
    /// Name of a slot that names the card's uppermost function.
    pub(crate) slot: Option<String>,
    pub(crate) device_id: u16,
    /// One, or several behind a switch on the card.
    pub(crate) chips: Vec<ChipPlan>,
    /// A bridge of each chip's own below the switch on the card.
    pub(crate) own_bridges: bool,
    /// A function of another vendor below the switch on the card.
    pub(crate) company: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct ChipPlan {
    pub(crate) driver: Option<&'static str>,
    pub(crate) virtual_functions: u8,
    /// An attribute and what it holds in place of what it should.
    pub(crate) odd: Option<(&'static str, Vec<u8>)>,
}

impl ChipPlan {
    /// Running, without anything odd.
    pub(crate) fn usual() -> Self {
        Self { driver: Some("iluvatar"), virtual_functions: 0, odd: None }
    }
}

impl Plan {
    /// Boards of two chips behind their own bridges, two boards to a switch, four chips to a root
    /// bus, each root bus in a domain of its own.
    pub(crate) fn of_dual_boards(chips: u32) -> Self {
        let card = || CardPlan {
            slot: None,
            device_id: 3,
            chips: vec![ChipPlan::usual(), ChipPlan::usual()],
            own_bridges: true,
            company: false,
        };
        let root_bus = |number: u32| RootBusPlan {
            domain: number,
            first_bus: 0,
            numa: NumaPlan::Chips(number % 2),
            above: Above::Switch,
            cards: vec![card(), card()],
        };
        Self {
            root_buses: (0..chips / 4).map(root_bus).collect(),
            nodes: NodesPlan::Child,
            minor_step: 1,
            control_node: true,
        }
    }

    /// The machine, and the physical chips on it in the order of their minors.
    pub(crate) fn build(&self) -> (Machine, Vec<PciAddress>) {
        let mut builder = Builder { plan: self, machine: Machine::default(), chips: Vec::new() };
        builder.machine.insert("sys/bus/pci/devices", Entry::Directory);
        builder.file("sys/module/iluvatar", "version", "4.3.8");
        for root_bus in &self.root_buses {
            builder.root_bus(root_bus);
        }
        if self.control_node {
            builder.device_node("itrctl", DeviceNumber { major: 509, minor: 0 });
        }
        (builder.machine, builder.chips)
    }
}

/// Where the next function goes.
#[derive(Clone, Debug)]
struct Bus {
    directory: String,
    domain: u32,
    number: u8,
    device: u8,
}

struct Builder<'a> {
    plan: &'a Plan,
    machine: Machine,
    chips: Vec<PciAddress>,
}

/// What is the same for everything below one root bus.
struct Wiring {
    numa: NumaPlan,
    next_bus: u8,
}

impl Wiring {
    fn port_node(&self) -> String {
        match self.numa {
            NumaPlan::Ports(node) => node.to_string(),
            _ => "-1".to_owned(),
        }
    }

    fn chip_node(&self) -> String {
        match self.numa {
            NumaPlan::Chips(node) => node.to_string(),
            _ => "-1".to_owned(),
        }
    }
}

impl Builder<'_> {
    fn root_bus(&mut self, plan: &RootBusPlan) {
        let root = RootBus { domain: plan.domain, bus: plan.first_bus };
        let directory = format!("sys/devices/{root}");
        let mut bus = Bus { directory, domain: plan.domain, number: plan.first_bus, device: 1 };
        let mut wiring = Wiring { numa: plan.numa, next_bus: plan.first_bus + 1 };
        if plan.above == Above::Switch {
            let mut below = self.port(&mut bus, &mut wiring);
            bus = self.port(&mut below, &mut wiring);
        }
        for card in &plan.cards {
            if plan.above == Above::Nothing {
                self.card(&mut bus, card, &mut wiring);
            } else {
                let mut below = self.port(&mut bus, &mut wiring);
                self.card(&mut below, card, &mut wiring);
            }
        }
    }

    fn card(&mut self, bus: &mut Bus, card: &CardPlan, wiring: &mut Wiring) {
        if let Some(slot) = &card.slot {
            let Bus { domain, number, device, .. } = bus;
            let address = format!("{domain:04x}:{number:02x}:{device:02x}");
            self.file(&format!("sys/bus/pci/slots/{slot}"), "address", &address);
        }
        if let [chip] = &*card.chips {
            return self.chip(bus, card.device_id, chip, wiring);
        }
        let mut switch = self.port(bus, wiring);
        if card.company {
            let mut below = self.port(&mut switch, wiring);
            self.function(&mut below, "0x15b3", "0x1017", "0x020700", "0");
        }
        for chip in &card.chips {
            let mut below = self.port(&mut switch, wiring);
            if card.own_bridges {
                let mut middle = self.port(&mut below, wiring);
                below = self.port(&mut middle, wiring);
            }
            self.chip(&mut below, card.device_id, chip, wiring);
        }
    }

    /// A bridge on `bus`, and the bus below it.
    fn port(&mut self, bus: &mut Bus, wiring: &mut Wiring) -> Bus {
        let node = wiring.port_node();
        let (_, directory) = self.function(bus, "0x8086", "0x2030", PORT_CLASS, &node);
        let number = wiring.next_bus;
        wiring.next_bus += 1;
        Bus { directory, domain: bus.domain, number, device: 0 }
    }

    fn chip(&mut self, bus: &mut Bus, device_id: u16, plan: &ChipPlan, wiring: &Wiring) {
        let node = wiring.chip_node();
        let device_id = format!("{device_id:#06x}");
        let (address, directory) = self.function(bus, "0x1e3e", &device_id, CHIP_CLASS, &node);
        for (name, value) in [
            ("current_link_speed", "16.0 GT/s PCIe"),
            ("current_link_width", "16"),
            ("max_link_speed", "16.0 GT/s PCIe"),
            ("max_link_width", "16"),
        ] {
            self.file(&directory, name, value);
        }
        let config = [&[0x3e, 0x1e][..], &[0; 62]].concat();
        self.machine.insert(&format!("{directory}/config"), Entry::File(config));
        self.bind(&directory, plan.driver);
        if plan.driver == Some("iluvatar") {
            self.node_of(address, &directory);
        }
        for function in 1..=plan.virtual_functions {
            self.virtual_function(PciAddress { function, ..address }, bus, &directory);
        }
        if let Some((name, bytes)) = &plan.odd {
            self.machine.insert(&format!("{directory}/{name}"), Entry::File(bytes.clone()));
        }
        self.chips.push(address);
    }

    fn virtual_function(&mut self, address: PciAddress, bus: &Bus, physical: &str) {
        let mut bus = bus.clone();
        bus.device = address.device;
        let directory = self.function_at(&bus, address, "0x1e3e", "0x00ff", CHIP_CLASS, "-1");
        let physical = physical.rsplit('/').next().unwrap_or_default();
        self.link(&format!("{directory}/physfn"), &format!("../{physical}"));
    }

    /// The node in /dev, and what shows whose it is.
    fn node_of(&mut self, chip: PciAddress, directory: &str) {
        let count = u32::try_from(self.chips.len()).unwrap_or(u32::MAX);
        let number = DeviceNumber { major: MAJOR, minor: count * self.plan.minor_step };
        let name = format!("iluvatar{}", number.minor);
        self.device_node(&name, number);
        let shown = match self.plan.nodes {
            NodesPlan::Nowhere => return,
            NodesPlan::Child => format!("{directory}/iluvatar-sys/{name}"),
            NodesPlan::Class => format!("sys/devices/virtual/iluvatar-sys/{name}"),
        };
        self.file(&shown, "dev", &number.to_string());
        let uevent = format!("MAJOR={MAJOR}\nMINOR={}\nDEVNAME={name}\n", number.minor);
        self.machine.insert(&format!("{shown}/uevent"), Entry::File(uevent.into_bytes()));
        let device = match self.plan.nodes {
            NodesPlan::Child => format!("../../../{chip}"),
            _ => format!("../../../{}", below_devices(directory)),
        };
        self.link(&format!("{shown}/device"), &device);
        let class = format!("sys/class/iluvatar-sys/{name}");
        self.link(&class, &format!("../../devices/{}", below_devices(&shown)));
    }

    fn bind(&mut self, directory: &str, driver: Option<&str>) {
        let Some(driver) = driver else { return };
        let up = "../".repeat(directory.split('/').count() - 1);
        self.machine.insert(&format!("sys/bus/pci/drivers/{driver}"), Entry::Directory);
        self.link(&format!("{directory}/driver"), &format!("{up}bus/pci/drivers/{driver}"));
    }

    /// A function at the next free device number of a bus.
    fn function(
        &mut self,
        bus: &mut Bus,
        vendor: &str,
        device: &str,
        class: &str,
        numa_node: &str,
    ) -> (PciAddress, String) {
        let Bus { domain, number, device: slot, .. } = *bus;
        let address = PciAddress { domain, bus: number, device: slot, function: 0 };
        let directory = self.function_at(bus, address, vendor, device, class, numa_node);
        bus.device += 1;
        (address, directory)
    }

    fn function_at(
        &mut self,
        bus: &Bus,
        address: PciAddress,
        vendor: &str,
        device: &str,
        class: &str,
        numa_node: &str,
    ) -> String {
        let directory = format!("{}/{address}", bus.directory);
        for (name, value) in
            [("vendor", vendor), ("device", device), ("class", class), ("numa_node", numa_node)]
        {
            self.file(&directory, name, value);
        }
        let target = format!("../../../devices/{}", below_devices(&directory));
        self.link(&format!("sys/bus/pci/devices/{address}"), &target);
        directory
    }

    fn file(&mut self, directory: &str, name: &str, value: &str) {
        let bytes = format!("{value}\n").into_bytes();
        self.machine.insert(&format!("{directory}/{name}"), Entry::File(bytes));
    }

    fn link(&mut self, path: &str, target: &str) {
        self.machine.insert(path, Entry::Link(target.to_owned()));
    }

    fn device_node(&mut self, name: &str, number: DeviceNumber) {
        self.machine.insert(&format!("dev/{name}"), Entry::CharDevice(number));
    }
}

fn below_devices(path: &str) -> &str {
    path.strip_prefix("sys/devices/").unwrap_or(path)
}

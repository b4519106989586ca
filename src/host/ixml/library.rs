//! libixml, loaded: each function is looked up on its own and may be missing. All unsafe code for the
//! library is here; it runs in the agent alone, on its only thread.

#![expect(unsafe_code, reason = "a C library can be called in no other way")]

use std::ffi::CString;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::path::Path;

use libloading::os::unix;

use super::abi;
use crate::model::ixml::{EccErrors, HealthBits, ReturnCode};
use crate::model::pci::{PciAddress, SlotAddress};
use crate::parse::ixml_bus_id::parse_bus_id;

/// The functions of a loaded library; those that it does not have are absent.
pub(super) struct Library {
    init: Option<abi::InitOrShutdown>,
    shutdown: Option<abi::InitOrShutdown>,
    count: Option<abi::GetCount>,
    by_index: Option<abi::GetHandleByIndex>,
    by_bus_id: Option<abi::GetHandleByBusId>,
    pci: Option<abi::GetPciInfo>,
    health: Option<abi::GetHealth>,
    ecc: Option<abi::GetEccErrors>,
    temperature: Option<abi::GetTemperature>,
}

/// One of the library's devices. The borrow ends it before [`Library::restart`] can.
#[derive(Clone, Copy)]
pub(super) struct LibraryDevice<'library> {
    handle: abi::Handle,
    library: PhantomData<&'library Library>,
}

impl Library {
    /// Loads the library at `path`, or the one of that name that the dynamic loader finds.
    ///
    /// It is never unloaded: its threads, its exit handlers and our pointers into it would outlive
    /// its code. It goes with the agent's process.
    ///
    /// # Errors
    /// The message of `dlerror`.
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let flags = unix::RTLD_LAZY | unix::RTLD_GLOBAL;
        // SAFETY: this runs the library's constructors, which nobody can vouch for but whoever
        // installed it; so it happens in a process that can be lost.
        let opened = unsafe { unix::Library::open(Some(path), flags) };
        let opened = opened.map_err(|error| loader_message(&error))?;
        Ok(Self::resolve(&ManuallyDrop::new(opened)))
    }

    fn resolve(opened: &unix::Library) -> Self {
        // SAFETY: each type is the signature that the vendor's header gives the functions of these
        // names; older versions take the same arguments (abi.rs has the reason for PciInfo). The library
        // stays loaded until the process ends, so the pointers stay good.
        unsafe {
            Self {
                init: find(opened, &["nvmlInit_v2", "nvmlInit"]),
                shutdown: find(opened, &["nvmlShutdown"]),
                count: find(opened, &["nvmlDeviceGetCount_v2", "nvmlDeviceGetCount"]),
                by_index: find(
                    opened,
                    &["nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetHandleByIndex"],
                ),
                by_bus_id: find(
                    opened,
                    &["nvmlDeviceGetHandleByPciBusId_v2", "nvmlDeviceGetHandleByPciBusId"],
                ),
                pci: find(
                    opened,
                    &["nvmlDeviceGetPciInfo_v3", "nvmlDeviceGetPciInfo_v2", "nvmlDeviceGetPciInfo"],
                ),
                health: find(opened, &["ixmlDeviceGetHealth"]),
                // The vendor's spelling, and the one that a correction would have.
                ecc: find(opened, &["ixmlDeviceGetEccErros", "ixmlDeviceGetEccErrors"]),
                temperature: find(opened, &["nvmlDeviceGetTemperature"]),
            }
        }
    }

    /// Initialises the library, which then finds its devices.
    ///
    /// # Errors
    /// The code of `nvmlInit`, except "already initialised".
    pub(super) fn start(&mut self) -> Result<(), ReturnCode> {
        // SAFETY: takes no argument; nothing else runs in the library meanwhile.
        match call(self.init, |init| unsafe { init() }) {
            Err(ReturnCode::ALREADY_INITIALIZED) => Ok(()),
            other => other,
        }
    }

    /// Closes all devices and finds them again.
    ///
    /// # Errors
    /// As [`Library::start`].
    pub(super) fn restart(&mut self) -> Result<(), ReturnCode> {
        // SAFETY: takes no argument; the exclusive borrow proves that no LibraryDevice is left that this
        // would make stale.
        match call(self.shutdown, |shutdown| unsafe { shutdown() }) {
            // Inits are counted: without a shutdown, another one changes nothing.
            Err(_) => Ok(()),
            Ok(()) => self.start(),
        }
    }

    /// How many devices there are.
    pub(super) fn count(&self) -> Result<u32, ReturnCode> {
        let mut count = 0;
        // SAFETY: the pointer is good for one u32.
        call(self.count, |function| unsafe { function(&raw mut count) })?;
        Ok(count)
    }

    /// The device with this index in the library's own order.
    pub(super) fn device_by_index(&self, index: u32) -> Result<LibraryDevice<'_>, ReturnCode> {
        let mut handle = abi::Handle(std::ptr::null_mut());
        // SAFETY: the pointer is good for one handle; an index that is too high is refused.
        call(self.by_index, |function| unsafe { function(index, &raw mut handle) })?;
        LibraryDevice::new(handle)
    }

    /// The device at a PCI address.
    pub(super) fn device_by_address(
        &self,
        chip: PciAddress,
    ) -> Result<LibraryDevice<'_>, ReturnCode> {
        let bus_id = CString::new(chip.to_string()).expect("an address has no NUL");
        let mut handle = abi::Handle(std::ptr::null_mut());
        // SAFETY: the text ends with NUL and outlives the call; the pointer is good for one handle.
        call(self.by_bus_id, |function| unsafe { function(bus_id.as_ptr(), &raw mut handle) })?;
        LibraryDevice::new(handle)
    }

    /// The slot of the device; none where the library writes it in an unknown form.
    pub(super) fn slot(
        &self,
        device: LibraryDevice<'_>,
    ) -> Result<Option<SlotAddress>, ReturnCode> {
        let mut info = abi::PciInfo::ZEROED;
        // SAFETY: the device is one of this library's, and the structure is the longest that any
        // version of the function fills.
        call(self.pci, |function| unsafe { function(device.handle, &raw mut info) })?;
        Ok(parse_bus_id(&info.bus_id).or_else(|| parse_bus_id(&info.bus_id_legacy)))
    }

    /// The health bits.
    pub(super) fn health(&self, device: LibraryDevice<'_>) -> Result<HealthBits, ReturnCode> {
        let mut bits = 0;
        // SAFETY: the device is one of this library's; the pointer is good for one u64.
        call(self.health, |function| unsafe { function(device.handle, &raw mut bits) })?;
        Ok(HealthBits(bits))
    }

    /// The ECC counters.
    pub(super) fn ecc(&self, device: LibraryDevice<'_>) -> Result<EccErrors, ReturnCode> {
        let (mut single, mut double) = (0, 0);
        // SAFETY: the device is one of this library's; each pointer is good for one u32.
        call(self.ecc, |function| unsafe {
            function(device.handle, &raw mut single, &raw mut double)
        })?;
        Ok(EccErrors { single, double })
    }

    /// The chip's temperature, in degrees Celsius.
    pub(super) fn temperature(&self, device: LibraryDevice<'_>) -> Result<u32, ReturnCode> {
        let mut degrees = 0;
        // SAFETY: the device is one of this library's; the pointer is good for one u32.
        call(self.temperature, |function| unsafe {
            function(device.handle, abi::CHIP_SENSOR, &raw mut degrees)
        })?;
        Ok(degrees)
    }
}

impl LibraryDevice<'_> {
    /// A library that reports success without a handle does not have the device.
    fn new(handle: abi::Handle) -> Result<Self, ReturnCode> {
        if handle.0.is_null() {
            return Err(ReturnCode::NOT_FOUND);
        }
        Ok(Self { handle, library: PhantomData })
    }
}

/// Calls a function that may not be there.
fn call<F>(function: Option<F>, with: impl FnOnce(F) -> abi::Return) -> Result<(), ReturnCode> {
    ReturnCode(with(function.ok_or(ReturnCode::FUNCTION_NOT_FOUND)?)).check()
}

/// The first of these functions that the library has.
///
/// # Safety
/// `F` is a pointer to a function, of the signature that the library gives each of these names.
unsafe fn find<F: Copy>(opened: &unix::Library, names: &[&str]) -> Option<F> {
    names.iter().find_map(|name| {
        // SAFETY: the caller vouches for the signature; a null pointer becomes None.
        let symbol = unsafe { opened.get::<Option<F>>(*name) };
        symbol.ok().and_then(|symbol| *symbol)
    })
}

fn loader_message(error: &libloading::Error) -> String {
    match error {
        libloading::Error::DlOpen { source } => source.to_string(),
        other => other.to_string(),
    }
}

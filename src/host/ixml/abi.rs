//! The C interface of libixml as far as health needs it: NVML's, with a few functions more. Layouts
//! are those of the vendor's header for driver 4.2 and later.

use std::ffi::{c_char, c_int, c_void};
use std::mem::{align_of, offset_of, size_of};

/// `nvmlReturn_t`, an `int`; as a number, since a Rust enum must not hold a value it does not name.
pub(super) type Return = c_int;

/// `nvmlDevice_t`: a structure of one pointer, passed by value, which on x86-64 and aarch64 is the
/// same as the pointer.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Handle(pub(super) *mut c_void);

/// `nvmlPciInfo_t`. The structures of the older `nvmlDeviceGetPciInfo` and `_v2` begin the same way
/// and are no longer, so one that is zeroed first serves all three.
#[repr(C)]
pub(super) struct PciInfo {
    pub(super) bus_id_legacy: [u8; 16],
    pub(super) domain: u32,
    pub(super) bus: u32,
    pub(super) device: u32,
    pub(super) pci_device_id: u32,
    pub(super) pci_subsystem_id: u32,
    pub(super) bus_id: [u8; 32],
}

impl PciInfo {
    pub(super) const ZEROED: Self = Self {
        bus_id_legacy: [0; 16],
        domain: 0,
        bus: 0,
        device: 0,
        pci_device_id: 0,
        pci_subsystem_id: 0,
        bus_id: [0; 32],
    };
}

const _: () = assert!(size_of::<PciInfo>() == 68 && align_of::<PciInfo>() == 4);
const _: () = assert!(offset_of!(PciInfo, domain) == 16 && offset_of!(PciInfo, bus_id) == 36);
const _: () = assert!(size_of::<Handle>() == size_of::<*mut c_void>());
const _: () = assert!(size_of::<Return>() == 4);

/// `nvmlInit`, `nvmlShutdown`.
pub(super) type InitOrShutdown = unsafe extern "C" fn() -> Return;
/// `nvmlDeviceGetCount`.
pub(super) type GetCount = unsafe extern "C" fn(*mut u32) -> Return;
/// `nvmlDeviceGetHandleByIndex`.
pub(super) type GetHandleByIndex = unsafe extern "C" fn(u32, *mut Handle) -> Return;
/// `nvmlDeviceGetHandleByPciBusId`.
pub(super) type GetHandleByBusId = unsafe extern "C" fn(*const c_char, *mut Handle) -> Return;
/// `nvmlDeviceGetPciInfo`.
pub(super) type GetPciInfo = unsafe extern "C" fn(Handle, *mut PciInfo) -> Return;
/// `ixmlDeviceGetHealth`.
pub(super) type GetHealth = unsafe extern "C" fn(Handle, *mut u64) -> Return;
/// `ixmlDeviceGetEccErros`: single, double.
pub(super) type GetEccErrors = unsafe extern "C" fn(Handle, *mut u32, *mut u32) -> Return;
/// `nvmlDeviceGetTemperature`: the sensor, then degrees Celsius.
pub(super) type GetTemperature = unsafe extern "C" fn(Handle, c_int, *mut u32) -> Return;

/// `NVML_TEMPERATURE_GPU`, the only sensor that the header has.
pub(super) const CHIP_SENSOR: c_int = 0;

//! Culprit's BPF programs. One object for every kernel: offsets and
//! differences between kernels come in as the frozen globals FIELDS and
//! CONFIG, and what they rule out is dead code to the verifier.
//!
//! One file per probe under `probes/`: its shared body, generic over how
//! kernel memory is read, and one thin entry point per flavour of attach.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(
    unreachable_pub,
    reason = "a binary: entry points must be pub to the linker, and the rest follows suit"
)]

mod account;
mod kernel;
mod maps;
mod probes;

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

// Several helpers are GPL-only; the programs are dual MIT/GPL.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

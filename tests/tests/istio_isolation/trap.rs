//! A filter that traps on every request, written out by hand: there is no other way for a module of Rust's to be so
//! small, or so wrong.

use anyhow::Result;
use sluice_tests::paths;
use std::{fs, path::PathBuf};

/// One byte of a type: i32.
const I32: u8 = 0x7f;
/// The functions that proxy-wasm asks for: name, how many arguments, how many results, and what they do.
const FUNCTIONS: [(&str, u8, u8, &[u8]); 6] = [
    ("proxy_abi_version_0_2_1", 0, 0, &[]),
    // i32.const 0: nothing is ever asked for.
    ("proxy_on_memory_allocate", 1, 1, &[0x41, 0]),
    // i32.const 1: all is well.
    ("proxy_on_vm_start", 2, 1, &[0x41, 1]),
    ("proxy_on_configure", 2, 1, &[0x41, 1]),
    ("proxy_on_context_create", 2, 0, &[]),
    // unreachable.
    ("proxy_on_request_headers", 3, 1, &[0x00]),
];

/// Writes the module; where it is.
///
/// # Errors
/// If it cannot be written.
pub(super) fn write() -> Result<PathBuf> {
    let file = paths::target().join("trap.wasm");
    fs::create_dir_all(paths::target())?;
    fs::write(&file, module())?;
    Ok(file)
}

fn module() -> Vec<u8> {
    let types = FUNCTIONS.map(|(_, arguments, results, _)| {
        let (arguments, results) = (vec![I32; arguments.into()], vec![I32; results.into()]);
        [
            vec![0x60],
            vector(arguments.into_iter().map(|it| vec![it])),
            vector(results.into_iter().map(|it| vec![it])),
        ]
        .concat()
    });
    let exports =
        FUNCTIONS.iter().zip(0..).map(|((name, ..), index)| [text(name), vec![0x00, index]].concat());
    let memory = [text("memory"), vec![0x02, 0]].concat();
    // No locals, the code, the end.
    let code = FUNCTIONS.map(|(.., code)| sized([&[0], code, &[0x0b]].concat()));
    [
        b"\0asm\x01\0\0\0".to_vec(),
        section(1, vector(types)),
        section(3, vector((0..FUNCTIONS.len()).map(length))),
        // One page.
        section(5, vector([vec![0x00, 1]])),
        section(7, vector(exports.chain([memory]))),
        section(10, vector(code)),
    ]
    .concat()
}

fn section(id: u8, content: Vec<u8>) -> Vec<u8> {
    [vec![id], sized(content)].concat()
}

fn vector(parts: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
    let parts: Vec<_> = parts.into_iter().collect();
    [length(parts.len()), parts.concat()].concat()
}

fn text(text: &str) -> Vec<u8> {
    sized(text.as_bytes().to_vec())
}

fn sized(content: Vec<u8>) -> Vec<u8> {
    [length(content.len()), content].concat()
}

/// LEB128.
fn length(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let byte = u8::try_from(number & 0x7f).unwrap_or_default();
        number >>= 7;
        if number == 0 {
            bytes.push(byte);
            return bytes;
        }
        bytes.push(byte | 0x80);
    }
}

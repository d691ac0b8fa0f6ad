//! One of those who race for a store: opens it and lets go of it as standard input says.
//!
//!     store-holder FOLDER
//!
//! `open` is answered with `has it`, `locked MICROSECONDS` or `wrong WHY`; `close` and `drop` let go
//! of it, the one in order and the other not, and are answered with `let go`.

use cairn_store::Store;
use cairn_store::config::{ByteSize, Config, Reserve};
use cairn_store::store::OpenError;
use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::time::Instant;

fn main() {
    let folder = PathBuf::from(std::env::args_os().nth(1).expect("a folder"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let config = Config {
        reserve: Reserve::Bytes(ByteSize(0)),
        ..Config::default()
    };
    let mut held = None;
    for line in std::io::stdin().lock().lines() {
        let answer = match line.expect("input").as_str() {
            "open" => {
                let began = Instant::now();
                match Store::open(&folder, &config, &mut |_| {}) {
                    Ok(store) => {
                        held = Some(store);
                        "has it".to_owned()
                    }
                    Err(OpenError::Locked { .. }) => {
                        format!("locked {}", began.elapsed().as_micros())
                    }
                    Err(error) => format!("wrong {error}"),
                }
            }
            "close" => {
                let store = held.take().expect("held");
                match runtime.block_on(store.close()) {
                    Ok(()) => "let go".to_owned(),
                    Err(error) => format!("wrong {error}"),
                }
            }
            "drop" => {
                drop(held.take());
                "let go".to_owned()
            }
            other => format!("wrong order {other}"),
        };
        let mut out = std::io::stdout().lock();
        writeln!(out, "{answer}").expect("output");
        out.flush().expect("output");
    }
}

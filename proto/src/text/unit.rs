use std::borrow::Cow;

/// Nanoseconds for people: `850 ns`, `0.4 ms`, `12.3 ms`, `1.50 s`, `2m05s`.
pub fn duration(ns: u64) -> String {
    let f = ns as f64;
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..100_000 => format!("{:.3} ms", f / 1e6),
        100_000..1_000_000_000 => format!("{:.1} ms", f / 1e6),
        1_000_000_000..60_000_000_000 => format!("{:.2} s", f / 1e9),
        _ => {
            let s = ns / 1_000_000_000;
            if s < 3600 {
                format!("{}m{:02}s", s / 60, s % 60)
            } else {
                format!("{}h{:02}m", s / 3600, s / 60 % 60)
            }
        }
    }
}

/// Bytes for people: `12 B`, `1.5 KiB`, `64.0 MiB`.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    let mut value = n as f64 / 1024.0;
    let mut unit = UNITS[0];
    for next in &UNITS[1..] {
        // What would be shown as 1024.0 belongs to the next unit.
        if value < 1023.95 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

/// Name of an errno that a socket can meet; `errno N` for others.
pub fn errno(n: u32) -> Cow<'static, str> {
    Cow::Borrowed(match n {
        1 => "EPERM",
        4 => "EINTR",
        11 => "EAGAIN",
        12 => "ENOMEM",
        13 => "EACCES",
        22 => "EINVAL",
        32 => "EPIPE",
        71 => "EPROTO",
        92 => "ENOPROTOOPT",
        97 => "EAFNOSUPPORT",
        98 => "EADDRINUSE",
        99 => "EADDRNOTAVAIL",
        100 => "ENETDOWN",
        101 => "ENETUNREACH",
        103 => "ECONNABORTED",
        104 => "ECONNRESET",
        105 => "ENOBUFS",
        110 => "ETIMEDOUT",
        111 => "ECONNREFUSED",
        112 => "EHOSTDOWN",
        113 => "EHOSTUNREACH",
        114 => "EALREADY",
        115 => "EINPROGRESS",
        n => return Cow::Owned(format!("errno {n}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_read_well() {
        let shown = [
            0,
            850,
            4_200,
            400_000,
            12_345_678,
            1_500_000_000,
            125_000_000_000,
            7_260_000_000_000,
        ]
        .map(duration);
        assert_eq!(
            shown,
            [
                "0 ns", "850 ns", "0.004 ms", "0.4 ms", "12.3 ms", "1.50 s", "2m05s", "2h01m"
            ]
        );
        assert_eq!(
            [12, 1536, 64 << 20, (1 << 20) - 1, u64::MAX].map(bytes),
            ["12 B", "1.5 KiB", "64.0 MiB", "1.0 MiB", "16384.0 PiB"]
        );
        assert_eq!(errno(111), "ECONNREFUSED");
        assert_eq!(errno(9999), "errno 9999");
    }
}

//! The add-on's metric names: a ScaledObject's HPA and a user's dashboards know them by these.

use std::fmt::Write;

/// The name of an InterceptorRoute's concurrency.
pub fn concurrency_name(route: &str) -> String {
    format!("http_{route}_concurrency")
}

/// The name of an InterceptorRoute's request rate.
pub fn rate_name(route: &str) -> String {
    format!("http_{route}_rate")
}

/// The name of an HTTPScaledObject's only metric: `http-<namespace>/<name>`, in which each character that is
/// not a letter, a digit, `-` or `.` becomes `_` and four hexadecimal digits.
pub fn http_scaled_object_name(namespace: &str, name: &str) -> String {
    let mut escaped = String::new();
    for c in format!("http-{namespace}/{name}").chars() {
        if c.is_ascii_alphanumeric() || matches!(c, '-' | '.') {
            escaped.push(c);
        } else {
            // Writing to a string cannot fail.
            let _ = write!(escaped, "_{:04X}", u32::from(c));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_add_ons() {
        assert_eq!(concurrency_name("my-app"), "http_my-app_concurrency");
        assert_eq!(rate_name("my-app"), "http_my-app_rate");
        assert_eq!(http_scaled_object_name("ns", "my-app.v1"), "http-ns_002Fmy-app.v1");
        assert_eq!(http_scaled_object_name("n_s", "é"), "http-n_005Fs_002F_00E9");
    }
}

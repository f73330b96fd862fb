//! Web addresses: which ones are used, where a redirect leads, and what may be shown of them.

use ureq::http::Uri;

const SHOWN_CHARS: usize = 200;

/// A web address that we are willing to use: with a host, without a password.
pub fn address(text: &str) -> Option<Uri> {
    let uri: Uri = text.parse().ok()?;
    let known = matches!(uri.scheme_str(), Some("http" | "https"));
    let plain = uri.authority().is_some_and(|a| !a.as_str().contains('@') && !a.host().is_empty());
    (known && plain).then_some(uri)
}

/// What a `Location` means on a page.
pub fn join(page: &Uri, location: &str) -> Option<Uri> {
    let (scheme, authority) = (page.scheme_str()?, page.authority()?);
    if location.is_empty() {
        return None;
    }
    let letters = |scheme: &str| scheme.bytes().all(|byte| byte.is_ascii_alphabetic());
    if location.split_once("://").is_some_and(|(scheme, _)| letters(scheme)) {
        return address(location);
    }
    if location.starts_with("//") {
        return address(&format!("{scheme}:{location}"));
    }
    let folder = match location.starts_with('/') {
        true => "",
        false => page.path().rsplit_once('/')?.0,
    };
    let slash = if location.starts_with('/') { "" } else { "/" };
    address(&format!("{scheme}://{authority}{folder}{slash}{location}"))
}

/// Whether what is meant for one may be told to the other.
pub fn same_origin(a: &Uri, b: &Uri) -> bool {
    let port = |uri: &Uri| {
        uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 })
    };
    let host = |uri: &Uri| uri.host().unwrap_or_default().to_ascii_lowercase();
    a.scheme() == b.scheme() && host(a) == host(b) && port(a) == port(b)
}

/// Whether nobody on the way can listen.
pub fn is_this_machine(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// For a path (`/` kept) or for one part of it, as a URL spells it.
pub fn quoted(text: &str, keep_slash: bool) -> String {
    let mut quoted = String::new();
    for byte in text.bytes() {
        let plain = byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
        if plain || (keep_slash && byte == b'/') {
            quoted.push(char::from(byte));
        } else {
            quoted += &format!("%{byte:02X}");
        }
    }
    quoted
}

/// Never the whole address: those of CDNs are signed.
pub fn host(uri: &Uri) -> String {
    printable(uri.authority().map_or("the server", |authority| authority.as_str()))
}

/// Words of others, cut and without control characters.
pub fn printable(text: &str) -> String {
    text.chars().take(SHOWN_CHARS).map(|c| if c.is_control() { '�' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_join() {
        let page = address("https://a.co:8443/x/y?q=1").expect("an address");
        let to = |location: &str| join(&page, location).map(|uri| uri.to_string());
        assert_eq!(to("/z"), Some("https://a.co:8443/z".into()));
        assert_eq!(to("z?u=http://e"), Some("https://a.co:8443/x/z?u=http://e".into()));
        assert_eq!(to("//b.co/z"), Some("https://b.co/z".into()));
        assert_eq!(to("http://b.co/z"), Some("http://b.co/z".into()));
        for bad in ["", "ftp://b.co/z", "https://me:secret@b.co/z", "https:///z"] {
            assert_eq!(to(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_token_stays_with_its_host() {
        let same = |a: &str, b: &str| {
            same_origin(&address(a).expect("an address"), &address(b).expect("an address"))
        };
        assert!(same("https://a.co/x", "https://A.co:443/y"));
        for other in ["http://a.co/", "https://b.co/", "https://a.co:444/", "https://a.co.b.co/"] {
            assert!(!same("https://a.co/", other), "{other}");
        }
    }

    #[test]
    fn addresses_quote() {
        assert_eq!(quoted("refs/pr/1", false), "refs%2Fpr%2F1");
        assert_eq!(quoted("a b/ü#.json", true), "a%20b/%C3%BC%23.json");
    }
}

//! Who had our ports before we changed our user: only root sees that.

use super::dhcp_socket::DhcpError;
use super::port_holder::{BindError, Holder, Protocol, holder};

/// Programs that have ports which we need.
#[derive(Debug, Default)]
pub struct Holders(Vec<(Protocol, u16, Holder)>);

impl Holders {
    /// Looks at these ports.
    pub fn find(ports: &[(Protocol, u16)]) -> Self {
        let held = |&(protocol, port)| Some((protocol, port, holder(protocol, port)?));
        Self(ports.iter().filter_map(held).collect())
    }

    /// Names the program in the error, if it says that somebody has one of these ports, and not who.
    pub fn name_in(&self, mut error: anyhow::Error) -> anyhow::Error {
        if let Some(DhcpError::Bind { source, .. }) = error.downcast_mut() {
            self.complete(source);
        } else if let Some(source) = error.downcast_mut() {
            self.complete(source);
        }
        error
    }

    fn complete(&self, error: &mut BindError) {
        if let BindError::InUse { protocol, address, holder: holder @ None } = error {
            let has_it = |(by, port, _): &&(Protocol, u16, Holder)| {
                (*by, *port) == (*protocol, address.port())
            };
            *holder = self.0.iter().find(has_it).map(|(_, _, holder)| holder.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;
    use std::net::{SocketAddr, UdpSocket};

    #[test]
    fn the_program_is_named_wherever_the_error_is_from() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address: SocketAddr = socket.local_addr().unwrap();
        let holders = Holders::find(&[(Protocol::Udp, address.port())]);
        let error = || BindError::InUse { protocol: Protocol::Udp, address, holder: None };
        let of_dhcp = DhcpError::Bind { interface: "br0".to_owned(), source: error() };
        let of_others = Err::<(), _>(error()).context("can't listen for reports").unwrap_err();
        for error in [anyhow::Error::from(of_dhcp), of_others, error().into()] {
            let text = format!("{:#}", holders.name_in(error));
            assert!(text.contains(&format!("(pid {})", std::process::id())), "{text}");
        }
    }
}

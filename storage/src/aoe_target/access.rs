//! Mask and reservation. Who may use a disk is the administrator's to say, not the network's: both
//! can be read, and may be set to what they are.

use crate::admission::AoePlace;
use aoe::{
    Directive, ErrorCode, Header, MaskError, MaskReply, MaskRequest, ReserveRequest,
    emit_reservation,
};
use wire::Mac;

/// The answer to a mask request, or how it is refused.
pub(super) fn mask(
    request: &MaskRequest<'_>,
    header: &Header,
    own: Mac,
    place: &AoePlace,
) -> Result<Vec<u8>, ErrorCode> {
    let clients = place.clients();
    let (reply, edit) = match request {
        MaskRequest::Read => (MaskReply::List(clients), false),
        MaskRequest::Edit(directives) => {
            let refusal = directives.iter().enumerate().find_map(|(index, directive)| {
                let why = match directive {
                    Directive::Nothing => return None,
                    Directive::Add(mac) if clients.contains(&mac) => return None,
                    Directive::Add(_) | Directive::Delete(_) => MaskError::Unspecified,
                    Directive::Unknown(_) => MaskError::BadDirective,
                };
                Some(MaskReply::Refused { index: index as u8, why })
            });
            (refusal.unwrap_or(MaskReply::List(clients)), true)
        }
        MaskRequest::Unknown(_) => return Err(ErrorCode::BadArgument),
    };
    Ok(reply.emit(header, own, place.address.shelf, place.address.slot, edit))
}

/// The answer to a reservation, or how it is refused. A disk is reserved for those that may see it.
pub(super) fn reserve(
    request: &ReserveRequest<'_>,
    header: &Header,
    own: Mac,
    place: &AoePlace,
) -> Result<Vec<u8>, ErrorCode> {
    let clients = place.clients();
    let command = match request {
        ReserveRequest::Read => 0,
        ReserveRequest::Set { macs, force } => {
            let is_the_same =
                macs.len() == clients.len() && macs.iter().all(|&mac| clients.contains(&Mac(mac)));
            if !is_the_same {
                return Err(ErrorCode::Reserved);
            }
            1 + u8::from(*force)
        }
        ReserveRequest::Unknown(_) => return Err(ErrorCode::BadArgument),
    };
    let address = place.address;
    Ok(emit_reservation(clients, header, own, address.shelf, address.slot, command))
}

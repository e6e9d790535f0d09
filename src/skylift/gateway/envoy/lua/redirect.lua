-- Whoever's address became another one is sent there.
function envoy_on_request(h)
  local made = h:streamInfo():dynamicMetadata():get('skylift.redirect')
  local to, headers = made and made['to'], h:headers()
  if not to or to == headers:get('x-sl-url') then return end
  local status = h:filterContext():get(headers:get(':method') == 'GET' and 'get' or 'others')
  h:respond({ [':status'] = string.format('%d', status), ['location'] = to }, '')
end

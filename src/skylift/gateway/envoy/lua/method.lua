-- The request is sent on with another method.
function envoy_on_request(h)
  h:headers():replace(':method', h:filterContext():get('method'))
end

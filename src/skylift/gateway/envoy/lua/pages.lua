-- A backend's failed answer with the page that a service has for it. The status stays what it was; without a page the
-- answer stays too.
local TIMEOUT_MS = 5000

local function meant(ranges, status)
  for _, range in ipairs(ranges) do
    if status >= range.low and status <= range.high then return true end
  end
end

local function quoted(s)
  return (s:gsub('[^%w%-._~]', function(c) return string.format('%%%02X', c:byte()) end))
end

function envoy_on_request(h)
  local headers = h:headers()
  local url = (headers:get('x-forwarded-proto') or 'http') .. '://' .. (headers:get(':authority') or '') .. headers:get(':path')
  h:streamInfo():dynamicMetadata():set('skylift.pages', 'url', url)
end

function envoy_on_response(h)
  local context, status = h:filterContext(), h:headers():get(':status')
  if not meant(context:get('ranges'), tonumber(status)) then return end
  local noted = h:streamInfo():dynamicMetadata():get('skylift.pages')
  local holes = { status = status, originalStatus = status, url = quoted(noted and noted['url'] or '') }
  local path = context:get('path'):gsub('{(%a+)}', holes)
  local asked = { [':method'] = 'GET', [':path'] = path, [':authority'] = context:get('host') }
  local cluster = context:get('cluster')
  h:body(true) -- all of it is here before the page is asked for: behind that it would have gone on
  local told, page = h:httpCall(cluster, asked, '', TIMEOUT_MS)
  if told[':status'] ~= '200' or not page then return end
  local length = h:body(true):setBytes(page)
  local headers = h:headers()
  headers:replace('content-length', tostring(length))
  headers:replace('content-type', told['content-type'] or 'text/plain')
  headers:remove('content-encoding')
end

-- The last good answer to a GET, served again while the backend fails. Kept per worker, host, path, query and
-- consumer; the oldest gives way.
local kept, order, first = {}, {}, 1

local function key_of(h)
  local headers = h:headers()
  if headers:get(':method') ~= 'GET' then return nil end
  local who = headers:get('x-consumer-username') or headers:get('authorization') or ''
  return table.concat({ who, headers:get(':authority') or '', headers:get(':path') }, '\0')
end

local function keep(key, answer, most)
  if not kept[key] then
    order[#order + 1] = key
    if #order - first + 1 > most then
      kept[order[first]] = nil
      order[first] = nil
      first = first + 1
    end
  end
  kept[key] = answer
end

function envoy_on_request(h)
  local key = key_of(h)
  if key then h:streamInfo():dynamicMetadata():set('skylift.stale', 'key', key) end
end

function envoy_on_response(h)
  local noted = h:streamInfo():dynamicMetadata():get('skylift.stale')
  if not noted then return end
  local headers, context = h:headers(), h:filterContext()
  local status = headers:get(':status')
  local old = kept[noted['key']]
  if status == '200' then
    local size = tonumber(headers:get('content-length') or '-1')
    if size > context:get('max_bytes') or (headers:get('cache-control') or ''):find('no%-store') then return end
    local body = h:body()
    if not body or body:length() > context:get('max_bytes') then return end
    keep(noted['key'], {
      body = body:getBytes(0, body:length()),
      type = headers:get('content-type'),
      encoding = headers:get('content-encoding'),
      at = os.time(),
    }, context:get('entries'))
  elseif context:get('statuses')[status] and old and os.time() - old.at <= context:get('max_age') then
    local body = h:body(true)
    local length = body:setBytes(old.body)
    headers:replace(':status', '200')
    headers:replace('content-length', tostring(length))
    if old.type then headers:replace('content-type', old.type) end
    if old.encoding then headers:replace('content-encoding', old.encoding) end
    headers:replace('age', tostring(os.time() - old.at))
    headers:replace('warning', '111 - "Revalidation Failed"')
  end
end
